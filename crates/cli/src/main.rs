//! The program `tiermalloc`.
fn main() {}
