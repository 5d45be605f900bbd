//! The pairs on tiermalloc.

#[path = "../pairs.rs"]
mod pairs;

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

fn main() {
    std::process::exit(pairs::main());
}
