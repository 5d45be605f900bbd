//! mnemosyne with its default features and its standard policy.

use peer::Peer;

#[global_allocator]
static GLOBAL: mnemosyne::Mnemosyne = mnemosyne::Mnemosyne;

/// What the program knows of it.
pub const PEER: Peer = Peer {
    name: "mnemosyne",
    package: "mnemosyne-memory",
    version: peer::silent,
    start: peer::nothing,
};
