//! The workloads on rusty_alloc.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
