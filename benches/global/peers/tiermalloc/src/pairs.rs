//! The loops of the instruction counts on tiermalloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
