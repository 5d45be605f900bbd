//! mimalloc 3 through the crate `mimalloc`, whose default it is; no feature makes it faster.

use peer::Peer;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "mimalloc3", package: "mimalloc", version: version, start: peer::nothing };

fn version() -> String {
    unsafe extern "C" {
        safe fn mi_version() -> i32;
    }
    format!("mi_version {}", mi_version())
}
