//! The workloads on the system's allocator.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
