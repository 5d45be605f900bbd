//! Blocks and the doors through which they come and go.
//!
//! Beside what holds of every live block (A1 to A3, `tiermalloc_fuzz::live`):
//! - A4: zeroed memory is zero.
//! - A5: a call that succeeds leaves `errno` alone; one that fails says `ENOMEM` and changes nothing.

use std::alloc::{GlobalAlloc, Layout};

use tiermalloc::{TierMalloc, raw};
use tiermalloc_fuzz::live::Live;
use tiermalloc_fuzz::{keeps_errno, pattern, says};

/// What is read of a block from either end to see that it is zero.
const READ: usize = 1 << 20;

/// Through which entry points a block came and may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `raw`, which asks for no layout to free or resize.
    Raw,
    /// `GlobalAlloc`, with a layout.
    Rust,
}

/// A live block, with what it was asked for.
#[derive(Debug)]
pub struct Block {
    live: Live,
    size: usize,
    align: usize,
    door: Door,
}

impl Block {
    fn adopt(pointer: *mut u8, size: usize, align: usize, door: Door) -> Self {
        assert!(!pointer.is_null(), "{size} bytes at {align}: there is memory");
        // SAFETY: just allocated, so it is ours up to its usable size.
        let live = unsafe {
            let usable = keeps_errno(|| raw::usable_size(pointer));
            Live::adopt(pointer, usable, size, align)
        };
        Self { live, size, align, door }
    }

    /// A2, and that the usable size is what it was.
    pub fn check(&self) {
        self.live.check();
        // SAFETY: the block is live.
        assert_eq!(unsafe { raw::usable_size(self.live.pointer()) }, self.live.usable());
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size, self.align).expect("asked for with it")
    }

    pub fn malloc(size: usize) -> Self {
        Self::adopt(keeps_errno(|| raw::malloc(size)), size, 16, Door::Raw)
    }

    /// `raw::malloc` as `operator new` calls it: the bin first.
    pub fn malloc_cached(size: usize) -> Self {
        let pointer = keeps_errno(|| match raw::malloc_cached(size) {
            object if object.is_null() => raw::malloc(size),
            object => object,
        });
        Self::adopt(pointer, size, 16, Door::Raw)
    }

    pub fn aligned(size: usize, align: usize) -> Self {
        Self::adopt(keeps_errno(|| raw::alloc(size, align)), size, align, Door::Raw)
    }

    pub fn rust(size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size.max(1), align).expect("a small one");
        // SAFETY: the layout is not empty.
        let pointer = keeps_errno(|| unsafe { TierMalloc::new().alloc(layout) });
        Self::adopt(pointer, size.max(1), align, Door::Rust)
    }

    /// A4.
    pub fn zeroed(size: usize, align: usize, door: Door) -> Self {
        let size = size.max(1);
        let layout = Layout::from_size_align(size, align).expect("a small one");
        let pointer = keeps_errno(|| match door {
            // SAFETY: the layout is not empty.
            Door::Rust => unsafe { TierMalloc::new().alloc_zeroed(layout) },
            Door::Raw => raw::alloc_zeroed(size, align),
        });
        assert!(!pointer.is_null(), "{size} bytes at {align}: there is memory");
        let read = size.min(READ);
        // SAFETY: just allocated with that size.
        let zero = unsafe {
            pattern::is_zero(pointer, read) && pattern::is_zero(pointer.add(size - read), read)
        };
        assert!(zero, "A4: {size} bytes at {align}");
        Self::adopt(pointer, size, align, door)
    }

    /// Resizes the block through its door.
    pub fn realloc(self, size: usize) -> Self {
        self.live.leave();
        let (pointer, size) = (self.live.pointer(), size.max(1));
        // C programs may use all of the usable size, Rust ones what they asked for.
        // SAFETY: the block is live, with this layout, and not used any more.
        let (moved, kept, align) = keeps_errno(|| unsafe {
            match self.door {
                Door::Rust => {
                    (TierMalloc::new().realloc(pointer, self.layout(), size), self.size, self.align)
                }
                Door::Raw => (raw::realloc(pointer, size), self.live.usable(), 16),
            }
        });
        assert!(!moved.is_null(), "{self:x?} to {size}: there is memory");
        // SAFETY: the block is there now, and at least so long.
        let held = unsafe { self.live.is_held_at(moved, kept.min(size)) };
        assert!(held, "A2: {self:x?} to {size}: at {moved:?} it holds something else");
        Self::adopt(moved, size, align, self.door)
    }

    /// A resize that cannot be had.
    pub fn realloc_in_vain(&self, size: usize) {
        let pointer = self.live.pointer();
        // No layout is so long, and none must be asked for.
        if self.door == Door::Rust && size > isize::MAX as usize - self.align {
            return;
        }
        // SAFETY: the block is live, with this layout.
        let moved = says(libc::ENOMEM, || unsafe {
            match self.door {
                Door::Rust => TierMalloc::new().realloc(pointer, self.layout(), size),
                Door::Raw => raw::realloc(pointer, size),
            }
        });
        assert!(moved.is_null(), "{self:x?} to {size}: nobody has that much");
        self.check();
    }

    /// A block that cannot be had.
    pub fn in_vain(size: usize, align: usize) {
        let calls: [fn(usize, usize) -> *mut u8; 3] =
            [|size, _| raw::malloc(size), raw::alloc, raw::alloc_zeroed];
        for call in calls {
            let pointer = says(libc::ENOMEM, || call(size, align));
            assert!(pointer.is_null(), "{size} bytes at {align}: nobody has that much");
        }
    }

    /// Frees the block, with or without its size.
    pub fn free(self, sized: bool) {
        self.live.leave();
        let pointer = self.live.pointer();
        // SAFETY: the block is live and not used any more; this is its size and alignment.
        keeps_errno(|| unsafe {
            match (self.door, sized) {
                (Door::Rust, true) => TierMalloc::new().dealloc(pointer, self.layout()),
                (Door::Raw, true) => raw::free_sized(pointer, self.size, self.align),
                (_, false) => raw::free(pointer),
            }
        });
    }
}
