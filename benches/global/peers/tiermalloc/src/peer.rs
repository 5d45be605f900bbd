//! This project's allocator, from the working tree.

use peer::Peer;

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "tiermalloc", package: "tiermalloc", version: peer::silent, start: peer::nothing };
