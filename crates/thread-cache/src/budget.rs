//! The bytes that all thread caches together may hold.

use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that threads claim pieces of. No lock.
#[derive(Debug)]
pub struct Budget {
    unclaimed: AtomicUsize,
    /// Most that one thread may claim.
    per_thread: AtomicUsize,
}

impl Budget {
    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(total: usize, per_thread: usize) -> Self {
        Self { unclaimed: AtomicUsize::new(total), per_thread: AtomicUsize::new(per_thread) }
    }

    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(tiermalloc_loom)]
    pub fn new(total: usize, per_thread: usize) -> Self {
        Self { unclaimed: AtomicUsize::new(total), per_thread: AtomicUsize::new(per_thread) }
    }

    /// Claims up to `wanted` bytes for a thread that has `has` already; returns how many it got.
    /// Relaxed throughout: only the number matters, nothing is published by it.
    pub fn claim(&self, wanted: usize, has: usize) -> usize {
        let wanted = wanted.min(self.per_thread.load(Ordering::Relaxed).saturating_sub(has));
        let mut unclaimed = self.unclaimed.load(Ordering::Relaxed);
        loop {
            let granted = wanted.min(unclaimed);
            if granted == 0 {
                return 0;
            }
            match self.unclaimed.compare_exchange_weak(
                unclaimed,
                unclaimed - granted,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return granted,
                Err(now) => unclaimed = now,
            }
        }
    }

    /// Gives claimed bytes back.
    pub fn give_back(&self, bytes: usize) {
        self.unclaimed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that nobody has claimed.
    pub fn unclaimed(&self) -> usize {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Most bytes that one thread may claim.
    pub fn per_thread(&self) -> usize {
        self.per_thread.load(Ordering::Relaxed)
    }
}
