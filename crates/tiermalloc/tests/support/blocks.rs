//! A model allocator: a map of live blocks, each filled with a pattern of its own up to its usable size.
//!
//! - A1: no two live blocks of the process overlap.
//! - A2: a block holds what was written to it until it is freed, and over a `realloc` up to the smaller
//!   size.
//! - A3: a block is aligned as asked and at least as long as asked.
//! - A4: zeroed memory is zero.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tiermalloc::{TierMalloc, raw};

/// All live blocks of all models of the process: start and end (A1).
static LIVE: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
static STAMPS: AtomicU64 = AtomicU64::new(1);

/// Up to here every word of a block is filled, beyond it both ends and one word of each stretch of
/// this length.
const FILLED: usize = 32 * 1024;
const EDGE: usize = 1024;

/// Through which entry points a block came and may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `raw::malloc` and `raw::realloc`.
    C,
    /// `raw::alloc` and `raw::alloc_zeroed`.
    Aligned,
    /// `GlobalAlloc`, with a layout.
    Rust,
}

#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub address: usize,
    pub size: usize,
    pub align: usize,
    pub door: Door,
    usable: usize,
    stamp: u64,
}

impl Block {
    /// Checks and fills a fresh block (A1, A3).
    fn adopt(pointer: *mut u8, size: usize, align: usize, door: Door) -> Self {
        assert!(!pointer.is_null(), "{size} bytes at {align}: memory ran out");
        let address = pointer as usize;
        assert_eq!(address % align, 0, "A3: {size} bytes at {align}");
        // SAFETY: just allocated.
        let usable = unsafe { raw::usable_size(pointer) };
        assert!(usable >= size, "A3: {usable} usable bytes of {size}");
        {
            let mut live = LIVE.lock().unwrap();
            let before = live.range(..address + usable).next_back();
            assert!(before.is_none_or(|(_, &end)| end <= address), "A1: {before:x?} {address:x}");
            live.insert(address, address + usable);
        }
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let block = Self { address, size, align, door, usable, stamp };
        block.for_each_word(usable, |word, value| {
            // SAFETY: within the usable size of a block of ours.
            unsafe { word.write_unaligned(value) };
        });
        block
    }

    /// The words that are filled, up to `length` bytes, and what they hold.
    fn for_each_word(&self, length: usize, mut each: impl FnMut(*mut u64, u64)) {
        let mut at = 0;
        while at + 8 <= length {
            each((self.address + at) as *mut u64, self.stamp ^ at as u64);
            let sparse = self.usable > FILLED && at >= EDGE && at + EDGE < self.usable;
            at += if sparse { FILLED - 8 } else { 8 };
            if sparse && at + EDGE > self.usable {
                at = (self.usable - EDGE).next_multiple_of(8);
            }
        }
    }

    /// A2, for the first `length` bytes.
    fn check(&self, length: usize) {
        self.for_each_word(length, |word, value| {
            // SAFETY: as in `adopt`.
            let held = unsafe { word.read_unaligned() };
            assert_eq!(held, value, "A2: {word:?} of {self:x?} changed");
        });
    }

    fn leave(&self) {
        self.check(self.usable);
        assert_eq!(LIVE.lock().unwrap().remove(&self.address), Some(self.address + self.usable));
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size, self.align).unwrap()
    }

    pub fn malloc(size: usize) -> Self {
        Self::adopt(raw::malloc(size), size, 16, Door::C)
    }

    /// `raw::malloc` as the C surface calls it: the bin first.
    pub fn malloc_cached(size: usize) -> Self {
        let pointer = match raw::malloc_cached(size) {
            object if object.is_null() => raw::malloc(size),
            object => object,
        };
        Self::adopt(pointer, size, 16, Door::C)
    }

    pub fn aligned(size: usize, align: usize) -> Self {
        Self::adopt(raw::alloc(size, align), size, align, Door::Aligned)
    }

    pub fn rust(size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the layout is not empty.
        Self::adopt(unsafe { TierMalloc::new().alloc(layout) }, size, align, Door::Rust)
    }

    /// A4.
    pub fn zeroed(size: usize, align: usize, door: Door) -> Self {
        let pointer = match door {
            Door::Rust => {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout is not empty.
                unsafe { TierMalloc::new().alloc_zeroed(layout) }
            }
            _ => raw::alloc_zeroed(size, align),
        };
        assert!(!pointer.is_null(), "{size} bytes at {align}: memory ran out");
        // SAFETY: just allocated with that size, and initialised.
        let bytes = unsafe { std::slice::from_raw_parts(pointer, size) };
        assert!(bytes.iter().all(|&byte| byte == 0), "A4: {size} bytes at {align}");
        Self::adopt(pointer, size, align, if door == Door::C { Door::Aligned } else { door })
    }

    /// Resizes the block through its door.
    pub fn realloc(self, size: usize) -> Self {
        let pointer = self.address as *mut u8;
        self.leave();
        // C programs may use all of the usable size, Rust ones what they asked for.
        let (moved, kept, align) = if self.door == Door::Rust {
            // SAFETY: the block is live, with this layout.
            let moved = unsafe { TierMalloc::new().realloc(pointer, self.layout(), size) };
            (moved, self.size, self.align)
        } else {
            // SAFETY: the block is live.
            (unsafe { raw::realloc(pointer, size) }, self.usable, 16)
        };
        assert!(!moved.is_null(), "{self:x?} to {size}: memory ran out");
        let there = Self { address: moved as usize, ..self };
        there.check(kept.min(size));
        let door = if self.door == Door::Rust { Door::Rust } else { Door::C };
        Self::adopt(moved, size, align, door)
    }

    /// Frees the block, with or without its size.
    pub fn free(self, sized: bool) {
        let pointer = self.address as *mut u8;
        self.leave();
        // SAFETY: the block is live and not used any more; this is its size and alignment.
        unsafe {
            match (self.door, sized) {
                (Door::Rust, true) => TierMalloc::new().dealloc(pointer, self.layout()),
                (_, true) => raw::free_sized(pointer, self.size, self.align),
                (_, false) => raw::free(pointer),
            }
        }
    }
}

/// Blocks of one thread, freed at the end.
#[derive(Default)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    pub fn add(&mut self, block: Block) {
        self.0.push(block);
    }

    pub fn take(&mut self, pick: usize) -> Option<Block> {
        (!self.0.is_empty()).then(|| self.0.swap_remove(pick % self.0.len()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.drain(..).enumerate().for_each(|(n, block)| block.free(n % 2 == 0));
        }
    }
}
