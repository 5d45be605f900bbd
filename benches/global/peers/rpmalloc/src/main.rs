//! The workloads on rpmalloc.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
