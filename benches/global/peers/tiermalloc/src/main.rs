//! The workloads on tiermalloc.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
