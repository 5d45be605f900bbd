//! A leaf: class bytes and span pointers of a stretch of pages.

use core::ptr::{self, NonNull};

use tiermalloc_sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// The entries of `LEAF` pages. All zero: nothing known of any of them.
#[repr(C)]
pub struct Leaf<T, const LEAF: usize> {
    classes: [AtomicU8; LEAF],
    spans: [AtomicPtr<T>; LEAF],
}

impl<T, const LEAF: usize> Leaf<T, LEAF> {
    #[cfg(not(tiermalloc_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            classes: [const { AtomicU8::new(0) }; LEAF],
            spans: [const { AtomicPtr::new(ptr::null_mut()) }; LEAF],
        }
    }

    #[cfg(tiermalloc_loom)]
    pub(crate) fn new() -> Self {
        Self {
            classes: core::array::from_fn(|_| AtomicU8::new(0)),
            spans: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// Makes fresh, zeroed memory a leaf: nothing to do, but under loom atomics are objects.
    ///
    /// # Safety
    /// `leaf` is fresh, zeroed memory of this layout.
    pub(crate) unsafe fn init(leaf: *mut Self) {
        #[cfg(tiermalloc_loom)]
        // SAFETY: passed on to the caller.
        unsafe {
            leaf.write(Self::new());
        }
        #[cfg(not(tiermalloc_loom))]
        let _ = leaf;
    }

    /// Relaxed: see `PageMap::home_class_id`.
    #[inline(always)]
    pub(crate) fn class(&self, index: usize) -> u8 {
        self.classes[index].load(Ordering::Relaxed)
    }

    /// The class byte of a page that the caller holds a live object in, or knows to be quiet.
    ///
    /// # Safety
    /// Nobody writes the entry meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn quiet_class(&self, index: usize) -> u8 {
        #[cfg(not(tiermalloc_loom))]
        // SAFETY: passed on to the caller. A plain read, which the compiler folds where it would
        // keep an atomic one apart.
        unsafe {
            self.classes.get_unchecked(index).as_ptr().read()
        }
        #[cfg(tiermalloc_loom)]
        self.class(index)
    }

    #[inline(always)]
    pub(crate) fn span(&self, index: usize) -> Option<NonNull<T>> {
        NonNull::new(self.spans[index].load(Ordering::Acquire))
    }

    /// M3: the pointer first, then the class.
    #[inline]
    pub(crate) fn set(&self, index: usize, span: NonNull<T>, class: u8) {
        self.spans[index].store(span.as_ptr(), Ordering::Release);
        self.classes[index].store(class, Ordering::Release);
    }

    /// M3: the class first, then the pointer.
    #[inline]
    pub(crate) fn clear(&self, index: usize) {
        self.classes[index].store(0, Ordering::Relaxed);
        self.spans[index].store(ptr::null_mut(), Ordering::Release);
    }
}
