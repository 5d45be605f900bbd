//! The workloads on snmalloc.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
