//! The pairs on the system's allocator, for comparison.

#[path = "../pairs.rs"]
mod pairs;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() {
    std::process::exit(pairs::main());
}
