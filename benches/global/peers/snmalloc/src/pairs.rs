//! The loops of the instruction counts on snmalloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
