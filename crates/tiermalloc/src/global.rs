//! The global allocator for Rust programs.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use tiermalloc_size_class::class_of;

use crate::{pools, raw, resize};

/// The allocator as a value for `#[global_allocator]`.
///
/// All values are the same: they stand for the process's one heap. Sizes and alignments that are
/// known when a program is compiled fold into the class, so that an allocation is a handful of
/// instructions where it stands.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TierMalloc;

impl TierMalloc {
    /// The allocator.
    pub const fn new() -> Self {
        Self
    }
}

// SAFETY: memory from `raw` is aligned, large enough, and the caller's alone until freed; nothing
// here unwinds.
unsafe impl GlobalAlloc for TierMalloc {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        raw::alloc(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's word: allocated here with this layout.
        unsafe { raw::free_sized(pointer, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        raw::alloc_zeroed(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let old = class_of(layout.size(), layout.align());
        let new = class_of(size, layout.align());
        let exact = pools::is_exact();
        if old.is_some() && old == new && !exact {
            return pointer;
        }
        // SAFETY: the caller's word: allocated here with this layout, and not used any more if it
        // moves.
        unsafe {
            if exact || old.is_none() && new.is_none() {
                return resize::realloc_pages(
                    pointer,
                    size,
                    layout.align(),
                    "GlobalAlloc::realloc",
                );
            }
            let target = raw::alloc(size, layout.align());
            if !target.is_null() {
                ptr::copy_nonoverlapping(pointer, target, layout.size().min(size));
                raw::free_sized(pointer, layout.size(), layout.align());
            }
            target
        }
    }
}
