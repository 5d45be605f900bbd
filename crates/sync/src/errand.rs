//! Who sees to it that somebody works while there is work: a word between those who find work and the
//! one who does it.
//!
//! | word | meaning |
//! |---|---|
//! | `NOBODY` (0) | nobody works |
//! | `WORKING` (1) | somebody works, and has seen all that was found |
//! | `ASKED` (2) | somebody works, or is about to, and has not seen what was found last |
//!
//! Invariants:
//! - E1: whoever replaces `NOBODY` brings a worker, and nobody else does.
//! - E2: a worker leaves by replacing `WORKING`, never `ASKED`: what was found before an [`ask`] that did
//!   not have to bring a worker is seen by a [`begin`] that comes after it.
//!
//! [`ask`]: Errand::ask
//! [`begin`]: Errand::begin

use crate::atomic::{AtomicU32, Ordering};

const NOBODY: u32 = 0;
const WORKING: u32 = 1;
const ASKED: u32 = 2;

/// The word; see the module.
#[derive(Debug)]
pub struct Errand(AtomicU32);

impl Errand {
    /// Nobody works.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(AtomicU32::new(NOBODY))
    }

    /// Nobody works.
    #[cfg(tiermalloc_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(AtomicU32::new(NOBODY))
    }

    /// Says that there is work. `true`: the caller has to bring a worker (E1), or to say that it
    /// [`failed`](Self::fail) to.
    ///
    /// Cost: an atomic exchange.
    #[inline]
    pub fn ask(&self) -> bool {
        // Release: the worker sees what was found, by this caller too where another has asked before: a
        // mere look at the word would not tell it.
        self.0.swap(ASKED, Ordering::Release) == NOBODY
    }

    /// Called by the worker before it looks for work.
    #[inline]
    pub fn begin(&self) {
        // Acquire: pairs with the release in `ask`.
        self.0.swap(WORKING, Ordering::Acquire);
    }

    /// Called by the worker when it has found nothing. `true`: it leaves (E2); `false`: somebody has
    /// asked since.
    #[inline]
    pub fn leave(&self) -> bool {
        self.0.compare_exchange(WORKING, NOBODY, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// There is no worker, and the caller of [`ask`](Self::ask) could bring none, or this is the child of a
    /// fork. Work that was found is left alone until somebody asks again.
    #[inline]
    pub fn fail(&self) {
        self.0.store(NOBODY, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_worker_is_brought_and_stays_while_somebody_asks() {
        let errand = Errand::new();
        assert!(errand.ask(), "nobody works");
        assert!(!errand.ask(), "one is on the way");
        errand.begin();
        assert!(!errand.ask());
        assert!(!errand.leave(), "asked since it has begun");
        errand.begin();
        assert!(errand.leave());
        assert!(errand.ask(), "it has left");
        errand.fail();
        assert!(errand.ask(), "it could not be brought");
    }
}
