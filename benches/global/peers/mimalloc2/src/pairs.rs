//! The loops of the instruction counts on mimalloc, version 2.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
