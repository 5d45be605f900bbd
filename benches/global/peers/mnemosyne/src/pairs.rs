//! The loops of the instruction counts on mnemosyne.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
