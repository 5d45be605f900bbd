//! snmalloc through `snmalloc-rs` with its default features.
//!
//! `native-cpu` and `lto` stay off: no other peer is compiled for this one processor, and the second
//! needs the same LLVM in the C++ compiler and in rustc.

use peer::Peer;

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "snmalloc", package: "snmalloc-rs", version: peer::silent, start: peer::nothing };
