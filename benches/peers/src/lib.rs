//! Nothing of its own. The dependencies of this package are the crates that carry the C and C++ sources
//! of other allocators; `cargo xtask bench` has cargo fetch them and builds the libraries to preload
//! itself (`benches/runner/src/peers/build.rs`).
