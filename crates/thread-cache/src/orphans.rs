//! Caches of threads that a fork has cut off, until somebody has the time to take one in.
//!
//! The child of a fork puts all of them here at once, while it has one thread. Later its threads take
//! them one by one, with two operations and no lock, because whoever takes one may be in the middle of an
//! allocation.
//!
//! Invariant U1: a cache is on this list or in the hands of the one thread that has taken it off. Whoever
//! takes one takes the whole list first, so that nobody else sees the cache behind the first one, and puts
//! the rest back.

use core::ptr::{self, NonNull};

use tiermalloc_sync::atomic::{AtomicPtr, Ordering};

use crate::ThreadCache;

/// A list of caches that belong to no thread; see the module.
pub struct Orphans {
    /// Linked as [`Registry::take_all_but`](crate::Registry::take_all_but) leaves them.
    first: AtomicPtr<ThreadCache>,
}

impl Orphans {
    /// No caches.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// No caches.
    #[cfg(tiermalloc_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether there are none, as far as this thread can tell; one load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.load(Ordering::Relaxed).is_null()
    }

    /// Adds caches, linked as the registry leaves them, in front of those that an earlier fork has left.
    ///
    /// # Safety
    /// The caches belong to nobody, and stay where they are until taken.
    pub unsafe fn add(&self, caches: NonNull<ThreadCache>) {
        let mut last = caches;
        // SAFETY: the list is the caller's, and from here on ours.
        while let Some(next) = NonNull::new(unsafe { last.as_ref() }.next.get()) {
            last = next;
        }
        let mut there = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: as above.
            unsafe { last.as_ref() }.next.set(there);
            // Release: whoever takes them sees the links, and what the caches hold.
            match self.first.compare_exchange(
                there,
                caches.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => there = now,
            }
        }
    }

    /// Takes a cache off the list. `None`: there is none, or another thread is taking one at this moment.
    pub fn take(&self) -> Option<NonNull<ThreadCache>> {
        // U1: all of them. Acquire: pairs with the release in `add`.
        let orphan = NonNull::new(self.first.swap(ptr::null_mut(), Ordering::Acquire))?;
        // SAFETY: taken off the list, so ours alone.
        unsafe {
            if let Some(rest) = NonNull::new(orphan.as_ref().next.replace(ptr::null_mut())) {
                self.add(rest);
            }
        }
        Some(orphan)
    }
}
