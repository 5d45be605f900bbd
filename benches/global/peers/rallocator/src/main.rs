//! The workloads on rallocator.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
