//! The loops of the instruction counts on Google's tcmalloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
