//! rpmalloc 1.4 through the crate `rpmalloc`: thread caches and global cache are on by default.

use peer::Peer;

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "rpmalloc", package: "rpmalloc", version: peer::silent, start: peer::nothing };
