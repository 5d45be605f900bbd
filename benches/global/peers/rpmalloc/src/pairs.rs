//! The loops of the instruction counts on rpmalloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
