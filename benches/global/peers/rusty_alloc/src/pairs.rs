//! The loops of the instruction counts on rusty_alloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
