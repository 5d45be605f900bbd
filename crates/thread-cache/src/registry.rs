//! All thread caches of a process.

use core::ptr::{self, NonNull};

use tiermalloc_central_cache::RawLock;
use tiermalloc_sync::atomic::{AtomicU32, Ordering};
#[cfg(not(tiermalloc_loom))]
use tiermalloc_sync::{CountsWaits, Patience};
use tiermalloc_sync::{Mutex, force_unlock, leak_locked};

use crate::ThreadCache;

struct List {
    first: *mut ThreadCache,
    count: usize,
    /// The cache that is asked next for a part of its limit.
    victim: *mut ThreadCache,
}

// SAFETY: the caches belong to their threads; what the registry touches of them is its links, under
// its lock, and atomics.
unsafe impl Send for List {}

/// A list of caches, for statistics, for asking a thread to give some of its limit back, and for the
/// child of a fork. One lock, taken when threads come and go.
pub struct Registry<R: RawLock> {
    list: Mutex<R, List>,
    /// Which of the caches at work looks next, counted up by each.
    looks: AtomicU32,
}

impl<R: RawLock> Registry<R> {
    /// No caches.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            list: Mutex::new(List { first: ptr::null_mut(), count: 0, victim: ptr::null_mut() }),
            looks: AtomicU32::new(0),
        }
    }

    /// No caches.
    #[cfg(tiermalloc_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            list: Mutex::new(List { first: ptr::null_mut(), count: 0, victim: ptr::null_mut() }),
            looks: AtomicU32::new(0),
        }
    }

    /// Adds a cache.
    ///
    /// # Safety
    /// The cache stays where it is and valid until [`remove`](Self::remove)d.
    pub unsafe fn add(&self, cache: NonNull<ThreadCache>) {
        let mut list = self.list.lock();
        // SAFETY: the links of registered caches are the registry's, under its lock.
        unsafe {
            cache.as_ref().previous.set(ptr::null_mut());
            cache.as_ref().next.set(list.first);
            if let Some(first) = list.first.as_ref() {
                first.previous.set(cache.as_ptr());
            }
        }
        list.first = cache.as_ptr();
        list.count += 1;
    }

    /// Takes a cache out. Returns how many are left.
    ///
    /// # Safety
    /// The cache was added and not removed since.
    pub unsafe fn remove(&self, cache: NonNull<ThreadCache>) -> usize {
        let mut list = self.list.lock();
        // SAFETY: as in `add`.
        unsafe {
            let (previous, next) = (cache.as_ref().previous.get(), cache.as_ref().next.get());
            match previous.as_ref() {
                Some(previous) => previous.next.set(next),
                None => list.first = next,
            }
            if let Some(next) = next.as_ref() {
                next.previous.set(previous);
            }
            if list.victim == cache.as_ptr() {
                list.victim = next;
            }
        }
        list.count -= 1;
        list.count
    }

    /// Asks the next cache in turn, other than `but`, for `bytes` of its limit, if that is larger by more than them.
    /// Does nothing when somebody else is at the registry: there will be another time.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub fn ask_another(&self, but: &ThreadCache, bytes: usize) {
        let Some(mut list) = self.list.try_lock() else { return };
        for _ in 0..2 {
            let victim = if list.victim.is_null() { list.first } else { list.victim };
            // SAFETY: registered caches are valid while the lock is held.
            let Some(cache) = (unsafe { victim.as_ref() }) else { return };
            list.victim = cache.next.get();
            if !ptr::eq(cache, but) {
                // Who has as much would only ask it back.
                if cache.bounds().0 > but.limit() + bytes {
                    cache.ask_back(bytes);
                }
                return;
            }
        }
    }

    /// Asks every cache for all that it has claimed. Does nothing when somebody else is at the registry.
    pub fn ask_all(&self) {
        let Some(list) = self.list.try_lock() else { return };
        let mut cache = list.first;
        // SAFETY: registered caches are valid while the lock is held.
        while let Some(this) = unsafe { cache.as_ref() } {
            this.ask_all_back();
            cache = this.next.get();
        }
    }

    /// Calls `each` for every cache, under the registry's lock.
    ///
    /// Callers read only what may be read of a cache that another thread is using.
    pub fn for_each(&self, mut each: impl FnMut(&ThreadCache)) {
        let list = self.list.lock();
        let mut cache = list.first;
        // SAFETY: registered caches are valid while the lock is held.
        while let Some(this) = unsafe { cache.as_ref() } {
            each(this);
            cache = this.next.get();
        }
    }

    /// [`for_each`](Self::for_each) for somebody whose patience may end: then `false`, and nothing is called.
    #[cfg(not(tiermalloc_loom))]
    pub fn for_each_within(
        &self,
        patience: &mut Patience,
        mut each: impl FnMut(&ThreadCache),
    ) -> bool {
        let Some(list) = tiermalloc_sync::lock_within(&self.list, patience) else { return false };
        let mut cache = list.first;
        // SAFETY: registered caches are valid while the lock is held.
        while let Some(this) = unsafe { cache.as_ref() } {
            each(this);
            cache = this.next.get();
        }
        true
    }

    /// How often somebody found the registry's lock taken.
    #[cfg(not(tiermalloc_loom))]
    pub fn waits(&self) -> u32
    where
        R: CountsWaits,
    {
        tiermalloc_sync::waits(&self.list)
    }

    /// Takes every cache but `keep` out and returns the first of them, for
    /// [`Orphans::add`](crate::Orphans::add). For the child of a fork.
    pub fn take_all_but(&self, keep: Option<NonNull<ThreadCache>>) -> Option<NonNull<ThreadCache>> {
        let mut list = self.list.lock();
        let mut rest: *mut ThreadCache = ptr::null_mut();
        let mut cache = list.first;
        // SAFETY: registered caches are valid while the lock is held.
        while let Some(this) = unsafe { cache.as_ref() } {
            let next = this.next.get();
            if keep.is_none_or(|keep| keep.as_ptr() != cache) {
                this.next.set(rest);
                rest = cache;
            }
            cache = next;
        }
        list.first = keep.map_or(ptr::null_mut(), NonNull::as_ptr);
        list.victim = ptr::null_mut();
        list.count = keep.is_some() as usize;
        if let Some(keep) = keep {
            // SAFETY: registered, so valid; its links are the registry's.
            unsafe {
                keep.as_ref().previous.set(ptr::null_mut());
                keep.as_ref().next.set(ptr::null_mut());
            }
        }
        NonNull::new(rest)
    }

    /// Counts a look: that of a cache which has made many slow steps since its last one. Its number, from 1 on.
    pub(crate) fn look(&self) -> u32 {
        // Relaxed: a number.
        self.looks.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Number of caches.
    pub fn count(&self) -> usize {
        self.list.lock().count
    }

    /// Takes the lock and keeps it, before a fork.
    pub fn lock_for_fork(&self) {
        leak_locked(&self.list);
    }

    /// Gives the lock up after a fork, in parent and child.
    ///
    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { force_unlock(&self.list) };
    }
}
