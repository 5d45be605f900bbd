//! The whole allocator, through `tiermalloc::raw` and `GlobalAlloc`, from several threads of the system
//! that hand blocks to each other, and end while some of theirs live, against a model of live
//! blocks (`blocks.rs`).
//!
//! An input is one list of operations, each with the thread that makes it. The threads take turns in the
//! order of the list, so that the input alone decides what happens; or each goes through its part
//! beside the others, for what only shows then. The process itself allocates from the system.
#![no_main]

mod blocks;
mod threads;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tiermalloc_fuzz::request::{Absurd, Align, Size};

#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Each thread for itself, not in turn.
    together: bool,
    turns: Vec<(u8, Op)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    Malloc(Size),
    MallocCached(Size),
    Aligned(Size, Align),
    Rust(Size, Align),
    ZeroedRust(Size, Align),
    ZeroedRaw(Size, Align),
    /// So many of one size.
    Many(Size, u8),
    Free {
        pick: u8,
        sized: bool,
    },
    /// So many in a row, from the oldest or from the newest on.
    FreeMany {
        count: u8,
        oldest: bool,
        sized: bool,
    },
    Realloc(u8, Size),
    Check(u8),
    /// Hands blocks to another thread, which frees or resizes them.
    Give {
        count: u8,
        to: u8,
    },
    InVain(Absurd, Align),
    ReallocInVain(u8, Absurd),
    Trim(u16),
    Verify,
    Stats,
    /// The thread ends; its blocks live on. If `late`, a destructor that runs after the allocator has
    /// taken the thread's cache down goes on with some of them.
    End {
        late: bool,
    },
}

fuzz_target!(|input: Input| threads::run(&input));
