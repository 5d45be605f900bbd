//! mimalloc 2 through the crate `mimalloc` and its feature `v2`.

use peer::Peer;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "mimalloc2", package: "mimalloc", version: version, start: peer::nothing };

fn version() -> String {
    unsafe extern "C" {
        safe fn mi_version() -> i32;
    }
    format!("mi_version {}", mi_version())
}
