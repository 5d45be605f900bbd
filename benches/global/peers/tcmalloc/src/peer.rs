//! Google's tcmalloc through `tcmalloc-better` with its default features, which are per-CPU caches and
//! pages of 8 KiB, and with the thread for background work that its documentation asks for.

use peer::Peer;
use tcmalloc_better::TCMalloc;

#[global_allocator]
static GLOBAL: TCMalloc = TCMalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "tcmalloc", package: "tcmalloc-better", version: peer::silent, start: background };

fn background() {
    // The thread lives as long as the program: nobody waits for it.
    drop(TCMalloc::process_background_actions_thread());
}
