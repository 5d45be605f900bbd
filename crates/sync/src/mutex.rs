//! `Mutex<R, T>`: one name, lock_api's in an ordinary build and loom's under the models.

#[cfg(not(tiermalloc_loom))]
mod imp {
    use crate::atomic::{AtomicU32, Ordering};
    use crate::futex::{State, Wait};
    use crate::{CountsWaits, Patience, sys};

    /// Sleeping through the kernel.
    struct Kernel;

    impl Wait for Kernel {
        #[inline]
        fn wait(&self, word: &AtomicU32, expected: u32) {
            sys::futex_wait(word, expected);
        }
        #[inline]
        fn wake_one(&self, word: &AtomicU32) {
            sys::futex_wake_one(word);
        }
    }

    /// The lock of the facade: four bytes and a counter, unlocked when all zero, never allocates, leaves
    /// `errno` alone, and can be unlocked in the child of a fork (the sleepers are not there any more).
    ///
    /// Whoever finds it taken counts that, and nobody else pays for it.
    pub struct RawFutexMutex {
        state: State,
        /// How often somebody found the lock taken; stays at the most that it holds.
        waits: AtomicU32,
    }

    impl RawFutexMutex {
        #[cold]
        #[inline(never)]
        fn wait(&self) {
            // Relaxed: a number.
            if self.waits.load(Ordering::Relaxed) < u32::MAX {
                self.waits.fetch_add(1, Ordering::Relaxed);
            }
            self.state.lock(&Kernel);
        }
    }

    impl CountsWaits for RawFutexMutex {
        fn waits(&self) -> u32 {
            self.waits.load(Ordering::Relaxed)
        }
    }

    // SAFETY: `State` gives mutual exclusion (F1 and F2 of its module, and its loom model).
    unsafe impl lock_api::RawMutex for RawFutexMutex {
        #[allow(clippy::declare_interior_mutable_const)] // lock_api asks for a constant
        const INIT: Self = Self { state: State::new(), waits: AtomicU32::new(0) };
        type GuardMarker = lock_api::GuardSend;

        #[inline]
        fn lock(&self) {
            if !self.state.try_lock() {
                self.wait();
            }
        }
        #[inline]
        fn try_lock(&self) -> bool {
            self.state.try_lock()
        }
        #[inline]
        unsafe fn unlock(&self) {
            // SAFETY: passed on to the caller.
            unsafe { self.state.unlock(&Kernel) }
        }
        #[inline]
        fn is_locked(&self) -> bool {
            self.state.is_locked()
        }
    }

    /// A lock around a value; see `lock_api::Mutex`.
    pub type Mutex<R, T> = lock_api::Mutex<R, T>;
    /// The proof of holding a [`Mutex`].
    pub type MutexGuard<'a, R, T> = lock_api::MutexGuard<'a, R, T>;

    /// The lock for those who use a tier on its own: `parking_lot`'s with the feature of that
    /// name, else ours. Inside a global allocator only [`RawFutexMutex`] will do, because
    /// parking_lot allocates when a thread first has to wait.
    #[cfg(feature = "parking_lot")]
    pub type DefaultRawMutex = parking_lot::RawMutex;
    /// The lock for those who use a tier on its own.
    #[cfg(not(feature = "parking_lot"))]
    pub type DefaultRawMutex = RawFutexMutex;

    /// How often somebody found the lock taken, since it was made.
    pub fn waits<R: lock_api::RawMutex + CountsWaits, T>(mutex: &Mutex<R, T>) -> u32 {
        // SAFETY: the raw lock is only asked.
        unsafe { mutex.raw() }.waits()
    }

    /// The lock, for a caller who may have interrupted its very holder: tried until it is free or the
    /// caller's patience is at its end.
    pub fn lock_within<'a, R: lock_api::RawMutex, T>(
        mutex: &'a Mutex<R, T>,
        patience: &mut Patience,
    ) -> Option<MutexGuard<'a, R, T>> {
        if patience.is_endless() {
            return Some(mutex.lock());
        }
        loop {
            if let Some(guard) = mutex.try_lock() {
                return Some(guard);
            }
            if !patience.sleep() {
                return None;
            }
        }
    }

    /// Locks and keeps it locked: the first half of a fork handler.
    pub fn leak_locked<R: lock_api::RawMutex, T>(mutex: &Mutex<R, T>) {
        core::mem::forget(mutex.lock());
    }

    /// Unlocks what [`leak_locked`] locked: the second half, in parent and child.
    ///
    /// # Safety
    /// The lock is held through [`leak_locked`] by this thread, or, in the child of a fork, by the
    /// thread that forked.
    pub unsafe fn force_unlock<R: lock_api::RawMutex, T>(mutex: &Mutex<R, T>) {
        debug_assert!(mutex.is_locked(), "nobody has locked it");
        // SAFETY: the caller holds the lock without a guard.
        unsafe { mutex.force_unlock() }
    }
}

#[cfg(tiermalloc_loom)]
use crate::modelled as imp;

pub use imp::*;

/// A raw lock that counts how often somebody found it taken.
pub trait CountsWaits {
    /// How often that was. It stays at the most that the number holds.
    fn waits(&self) -> u32;
}

/// How long somebody waits for locks, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(Option<u32>);

impl Patience {
    /// For as long as it takes.
    pub const ENDLESS: Self = Self(None);

    /// For about so many milliseconds.
    pub const fn ms(ms: u32) -> Self {
        Self(Some(ms))
    }

    /// Whether it never ends.
    pub const fn is_endless(&self) -> bool {
        self.0.is_none()
    }

    /// Sleeps for a millisecond of what is left; `false`: nothing is.
    #[cfg(not(tiermalloc_loom))]
    fn sleep(&mut self) -> bool {
        match &mut self.0 {
            None => {}
            Some(0) => return false,
            Some(left) => *left -= 1,
        }
        crate::sys::sleep(1);
        true
    }
}
