//! The bytes that all thread caches together may hold.
//!
//! In a *shared* budget a thread's claim is bounded by an 8th of what is unclaimed and its own, so that the
//! first threads do not leave the later ones without: a hundred threads that once were busy and now sleep
//! still leave something. Besides, each thread has a small floor, which nobody else's sleep can take
//! away; the bound for all threads together is then the total and a floor for each. A budget that was
//! [configured](Budget::configure) takes the floors out of the total.

use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

/// What the kept bytes are where floors are besides the total.
const BESIDES: usize = usize::MAX;
/// A [configured](Budget::configure) budget keeps such a part of the total for floors.
const KEPT: usize = 4;

/// A number of bytes that threads claim pieces of. No lock.
#[derive(Debug)]
pub struct Budget {
    unclaimed: AtomicUsize,
    /// All of it, once it is configured.
    total: AtomicUsize,
    /// Most that one thread may claim.
    per_thread: AtomicUsize,
    /// Each thread may claim one such part of what is unclaimed and its own.
    part: usize,
    floor: AtomicUsize,
    /// What is left for floors, or [`BESIDES`].
    kept: AtomicUsize,
}

impl Budget {
    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(total: usize, per_thread: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            total: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 1,
            floor: AtomicUsize::new(0),
            kept: AtomicUsize::new(BESIDES),
        }
    }

    /// A shared budget (see the module): the same, an 8th of what is left at most for each thread, and
    /// `floor` bytes for each besides.
    #[cfg(not(tiermalloc_loom))]
    pub const fn shared(total: usize, per_thread: usize, floor: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            total: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 8,
            floor: AtomicUsize::new(floor),
            kept: AtomicUsize::new(BESIDES),
        }
    }

    /// `total` bytes for all threads, at most `per_thread` for each.
    #[cfg(tiermalloc_loom)]
    pub fn new(total: usize, per_thread: usize) -> Self {
        Self {
            unclaimed: AtomicUsize::new(total),
            total: AtomicUsize::new(total),
            per_thread: AtomicUsize::new(per_thread),
            part: 1,
            floor: AtomicUsize::new(0),
            kept: AtomicUsize::new(BESIDES),
        }
    }

    /// Sets all numbers anew, for a budget of which nobody has anything yet, so that nothing is besides: all
    /// caches together stay within `total` bytes, each within `per_thread`, floors included. A quarter of the
    /// total is kept for floors; threads for whom nothing of it is left have none.
    pub fn configure(&self, total: usize, per_thread: usize, floor: usize) {
        let floor = floor.min(per_thread);
        // Relaxed: numbers, set before there is a cache.
        self.total.store(total, Ordering::Relaxed);
        self.kept.store(total / KEPT, Ordering::Relaxed);
        self.unclaimed.store(total - total / KEPT, Ordering::Relaxed);
        self.per_thread.store(per_thread - floor, Ordering::Relaxed);
        self.floor.store(floor, Ordering::Relaxed);
    }

    /// The floor of a new cache; less when there is not enough left.
    pub(crate) fn take_floor(&self) -> usize {
        let floor = self.floor();
        let mut kept = self.kept.load(Ordering::Relaxed);
        loop {
            let taken = floor.min(kept);
            if kept == BESIDES || taken == 0 {
                return taken;
            }
            match self.kept.compare_exchange_weak(
                kept,
                kept - taken,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return taken,
                Err(now) => kept = now,
            }
        }
    }

    pub(crate) fn return_floor(&self, bytes: usize) {
        // It does not change from one kind to the other while there are caches.
        if self.kept.load(Ordering::Relaxed) != BESIDES {
            self.kept.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Claims up to `wanted` bytes for a thread that has `has` already; returns how many it got.
    /// Relaxed throughout: only the number matters, nothing is published by it.
    pub fn claim(&self, wanted: usize, has: usize) -> usize {
        self.claim_beside(0, usize::MAX, wanted, has)
    }

    /// [`claim`](Self::claim), by a thread that may have `share` bytes at most, where `others` bytes of what is
    /// unclaimed are somebody's who claims nothing.
    pub fn claim_beside(&self, others: usize, share: usize, wanted: usize, has: usize) -> usize {
        let share = self.per_thread.load(Ordering::Relaxed).min(share);
        let wanted = wanted.min(share.saturating_sub(has));
        if wanted == 0 {
            return 0;
        }
        let kept = self.kept.load(Ordering::Relaxed);
        let kept = if kept == BESIDES { 0 } else { kept };
        let mut unclaimed = self.unclaimed.load(Ordering::Relaxed);
        loop {
            let left = unclaimed.saturating_sub(others);
            let part = ((left + kept + has) / self.part).saturating_sub(has);
            let granted = wanted.min(part).min(left);
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

    /// Bytes that a new cache has besides what it claims.
    pub fn floor(&self) -> usize {
        self.floor.load(Ordering::Relaxed)
    }

    /// Bytes that all caches together may hold, floors included if it was [configured](Self::configure).
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes that nobody has claimed; those that are kept for floors are not among them.
    pub fn unclaimed(&self) -> usize {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Most bytes that one thread may claim.
    pub fn per_thread(&self) -> usize {
        self.per_thread.load(Ordering::Relaxed)
    }
}
