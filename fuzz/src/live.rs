//! The model that stands above any allocator: live blocks, each filled with a pattern of its own.
//!
//! - A1: no two live blocks of the process overlap.
//! - A2: a block holds what was written to it until it is freed, and over a `realloc` up to the smaller
//!   size; all of its usable size may be written to.
//! - A3: a block is aligned as asked and at least as long as asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::pattern;

/// Start and end of every live block (A1).
static LIVE: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
/// Bytes of all live blocks but the huge ones, and of these.
static BYTES: AtomicUsize = AtomicUsize::new(0);
static HUGE_BYTES: AtomicUsize = AtomicUsize::new(0);
static STAMPS: AtomicU64 = AtomicU64::new(1);

/// Bytes that may be live before requests are made small.
const PLENTY: usize = 8 << 20;
/// From here on a block is one that is mostly untouched. So many bytes of such may be live.
const HUGE: usize = 16 << 20;
const HUGE_PLENTY: usize = 128 << 20;

/// A live block.
#[derive(Debug)]
pub struct Live {
    address: usize,
    usable: usize,
    stamp: u64,
}

/// The most that a block may be made of now.
pub fn most() -> usize {
    if BYTES.load(Ordering::Relaxed) > PLENTY {
        return 1000;
    }
    if HUGE_BYTES.load(Ordering::Relaxed) > HUGE_PLENTY { PLENTY } else { usize::MAX - 1 }
}

/// Usable bytes of all live blocks.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed) + HUGE_BYTES.load(Ordering::Relaxed)
}

impl Live {
    /// Checks and fills a fresh block of `size` bytes at `align`, of which `usable` may be used (A1, A3).
    ///
    /// # Safety
    /// The block is the caller's, for `usable` bytes.
    pub unsafe fn adopt(pointer: *mut u8, usable: usize, size: usize, align: usize) -> Self {
        let address = pointer as usize;
        assert_ne!(address, 0, "{size} bytes at {align}: there is memory");
        assert_eq!(address % align.max(8), 0, "A3: {size} bytes at {align}");
        assert!(usable >= size, "A3: {usable} usable bytes of {size}");
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let block = Self { address, usable, stamp };
        {
            let mut live = LIVE.lock().unwrap();
            let before = live.range(..address + usable).next_back();
            assert!(before.is_none_or(|(_, &end)| end <= address), "A1: {before:x?} {block:x?}");
            live.insert(address, address + usable);
        }
        block.counter().fetch_add(usable, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        unsafe { pattern::fill(pointer, usable, stamp) };
        block
    }

    /// A2 one last time: the block is about to be freed, or resized.
    pub fn leave(&self) {
        self.check();
        let gone = LIVE.lock().unwrap().remove(&self.address);
        assert_eq!(gone, Some(self.address + self.usable));
        self.counter().fetch_sub(self.usable, Ordering::Relaxed);
    }

    fn counter(&self) -> &'static AtomicUsize {
        if self.usable < HUGE { &BYTES } else { &HUGE_BYTES }
    }

    /// A2.
    pub fn check(&self) {
        // SAFETY: the block is live.
        assert!(
            unsafe { self.is_held_at(self.pointer(), self.usable) },
            "A2: {self:x?} has changed"
        );
    }

    /// Whether the first `kept` bytes are at `there` now.
    ///
    /// # Safety
    /// So many bytes can be read there.
    pub unsafe fn is_held_at(&self, there: *const u8, kept: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { pattern::holds(there, self.usable, kept.min(self.usable), self.stamp) }
    }

    /// Where it is.
    pub fn pointer(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Bytes that may be used.
    pub fn usable(&self) -> usize {
        self.usable
    }
}
