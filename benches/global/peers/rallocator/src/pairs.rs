//! The loops of the instruction counts on rallocator.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
