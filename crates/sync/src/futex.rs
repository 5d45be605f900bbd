//! A four-byte lock that never allocates: the algorithm, apart from the waiting itself.
//!
//! | `state` | meaning |
//! |---|---|
//! | `FREE` (0) | nobody holds the lock |
//! | `HELD` (1) | held, and nobody sleeps |
//! | `CONTENDED` (2) | held, and somebody may sleep: the unlocker must wake one |
//!
//! A thread that has slept always takes the lock as `CONTENDED`, because it cannot know whether
//! others still sleep. That is the classic three-state futex lock ("Futexes Are Tricky", Ulrich
//! Drepper, 2011, section 6, mutex 2).
//!
//! Invariants:
//! - F1: a sleeper put `CONTENDED` into `state` before it slept, and sleeps only while it is there.
//! - F2: whoever replaces `CONTENDED` by `FREE` wakes one sleeper. With F1 no wake-up is lost.

use crate::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// Turns of busy waiting before a thread goes to sleep. Critical sections of the allocator are
/// tens of nanoseconds, a futex call is a microsecond.
const SPINS: u32 = if cfg!(tiermalloc_loom) { 1 } else { 100 };

/// How a thread sleeps on a word and wakes another: the operating system, or a model of it.
pub trait Wait {
    /// Sleeps while `word` holds `expected`; may return at any time for no reason.
    fn wait(&self, word: &AtomicU32, expected: u32);
    /// Wakes one thread that sleeps on `word`, if there is one.
    fn wake_one(&self, word: &AtomicU32);
}

/// The lock's state word and the algorithm over it.
#[derive(Debug)]
pub struct State(AtomicU32);

impl State {
    /// An unlocked state.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// An unlocked state.
    #[cfg(tiermalloc_loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// Takes the lock if it is free. Acquire: what the last holder wrote is seen.
    #[inline]
    pub fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting through `w` as long as it is held.
    #[inline]
    pub fn lock(&self, w: &impl Wait) {
        if !self.try_lock() {
            self.lock_slow(w);
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, w: &impl Wait) {
        for _ in 0..SPINS {
            // Relaxed: only a hint; the exchange below acquires.
            match self.0.load(Ordering::Relaxed) {
                FREE if self.try_lock() => return,
                _ => crate::spin_hint(),
            }
        }
        // F1: announce the sleeper before sleeping. Acquire: this may also be the locking step.
        while self.0.swap(CONTENDED, Ordering::Acquire) != FREE {
            w.wait(&self.0, CONTENDED);
        }
    }

    /// Gives the lock up. Release: the next holder sees what this one wrote.
    ///
    /// # Safety
    /// The caller holds the lock.
    #[inline]
    pub unsafe fn unlock(&self, w: &impl Wait) {
        // F2
        if self.0.swap(FREE, Ordering::Release) == CONTENDED {
            w.wake_one(&self.0);
        }
    }

    /// Whether somebody holds the lock at this moment.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
