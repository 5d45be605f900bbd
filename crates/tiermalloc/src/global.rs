//! The global allocator for Rust programs.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use tiermalloc_size_class::class_of;

use crate::config::{self, Config};
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
pub struct TierMalloc {
    /// What the program has been built with, if it says anything.
    config: Option<Config>,
}

impl TierMalloc {
    /// The allocator.
    #[must_use]
    pub const fn new() -> Self {
        Self { config: None }
    }

    /// The allocator, with other defaults than those that are built in. Files and the environment have the last word;
    /// with the feature `fixed-config` the program has.
    ///
    /// The configuration is decided at the first allocation of the process, by whoever makes it: of two values with
    /// different configurations the one that allocates first counts, and none after
    /// [`config`](crate::config()), a [`raw`] allocation or the value of [`new`](Self::new) has been first. A
    /// preloaded `libtiermalloc.so` is another allocator, with a heap and a configuration of its own: it serves the
    /// program's libraries in C and hears nothing of this.
    ///
    /// Cost: two instructions where a bin is found empty.
    ///
    /// ```
    /// use tiermalloc::{Config, Pool, TierMalloc};
    ///
    /// #[global_allocator]
    /// static GLOBAL: TierMalloc =
    ///     TierMalloc::with_config(Config::new().pool(Pool::Central).quarantine(1 << 20));
    ///
    /// assert_eq!(tiermalloc::config().pool, Pool::Central);
    /// ```
    #[must_use]
    pub const fn with_config(config: Config) -> Self {
        Self { config: Some(config) }
    }

    /// Called where the bin has nothing, so also at the first allocation: from then on it is known what holds. Folds
    /// away where the value is a `static` without a configuration.
    #[inline(always)]
    fn announce(&self) {
        if let Some(config) = &self.config {
            config::decide_with(config);
        }
    }
}

// SAFETY: memory from `raw` is aligned, large enough, and the caller's alone until freed; nothing
// here unwinds.
unsafe impl GlobalAlloc for TierMalloc {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        raw::alloc_after(layout.size(), layout.align(), || self.announce())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's word: allocated here with this layout.
        unsafe { raw::free_sized(pointer, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        raw::alloc_zeroed_after(layout.size(), layout.align(), || self.announce())
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
