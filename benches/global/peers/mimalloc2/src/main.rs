//! The workloads on mimalloc, version 2.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
