//! The workloads on jemalloc.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
