//! The loops of the instruction counts on jemalloc.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
