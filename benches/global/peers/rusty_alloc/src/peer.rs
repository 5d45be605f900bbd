//! rusty_alloc, a remake of mimalloc in Rust, with its default features.

use peer::Peer;

#[global_allocator]
static GLOBAL: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

/// What the program knows of it.
pub const PEER: Peer = Peer {
    name: "rusty_alloc",
    package: "rusty_alloc-api",
    version: peer::silent,
    start: peer::nothing,
};
