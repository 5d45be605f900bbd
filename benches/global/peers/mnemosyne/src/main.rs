//! The workloads on mnemosyne.

mod peer;

fn main() -> std::process::ExitCode {
    workloads::main(&peer::PEER)
}
