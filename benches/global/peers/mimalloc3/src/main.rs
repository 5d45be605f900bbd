//! The workloads on mimalloc, version 3.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
