//! The bytes that all thread caches together may hold.
//!
//! In a *shared* budget a thread's claim is bounded by an 8th of what is unclaimed and its own, so that the
//! first threads do not leave the later ones without: a hundred threads that once were busy and now sleep
//! still leave something. Besides, each thread has a small floor, which nobody else's sleep can take
//! away; the bound for all threads together is then the total and a floor for each.

use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that threads claim pieces of. No lock.
#[derive(Debug)]
pub struct Budget {
    unclaimed: AtomicUsize,
    /// Most that one thread may claim.
    per_thread: AtomicUsize,
    /// Each thread may claim one such part of what is unclaimed and its own.
    part: usize,
    floor: usize,
}

impl Budget {
    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(total: usize, per_thread: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 1,
            floor: 0,
        }
    }

    /// A shared budget (see the module): the same, an 8th of what is left at most for each thread, and
    /// `floor` bytes for each besides.
    #[cfg(not(tiermalloc_loom))]
    pub const fn shared(total: usize, per_thread: usize, floor: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 8,
            floor,
        }
    }

    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(tiermalloc_loom)]
    pub fn new(total: usize, per_thread: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 1,
            floor: 0,
        }
    }

    /// Claims up to `wanted` bytes for a thread that has `has` already; returns how many it got.
    /// Relaxed throughout: only the number matters, nothing is published by it.
    pub fn claim(&self, wanted: usize, has: usize) -> usize {
        self.claim_within(usize::MAX, wanted, has)
    }

    /// [`claim`](Self::claim), by a thread that may have `share` bytes at most.
    pub fn claim_within(&self, share: usize, wanted: usize, has: usize) -> usize {
        let share = self.per_thread.load(Ordering::Relaxed).min(share);
        let wanted = wanted.min(share.saturating_sub(has));
        if wanted == 0 {
            return 0;
        }
        let mut unclaimed = self.unclaimed.load(Ordering::Relaxed);
        loop {
            let part = ((unclaimed + has) / self.part).saturating_sub(has);
            let granted = wanted.min(part).min(unclaimed);
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

    /// Bytes that each thread has besides what it claims.
    pub const fn floor(&self) -> usize {
        self.floor
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
