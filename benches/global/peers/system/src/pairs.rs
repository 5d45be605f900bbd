//! The loops of the instruction counts on the system's allocator.

mod peer;

fn main() -> std::process::ExitCode {
    pairs::main(&peer::PEER)
}
