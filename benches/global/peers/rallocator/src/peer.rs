//! rallocator, snmalloc's design in Rust, installed by its macro as its documentation asks.

use peer::Peer;

rallocator::rallocator!();

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "rallocator", package: "rallocator", version: peer::silent, start: peer::nothing };
