//! `Mutex<R, T>`: one name, lock_api's in an ordinary build and loom's under the models.

#[cfg(not(tiermalloc_loom))]
mod imp {
    use crate::atomic::AtomicU32;
    use crate::futex::{State, Wait};
    use crate::sys;

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

    /// The lock of the facade: four bytes, unlocked when all zero, never allocates, leaves `errno`
    /// alone, and can be unlocked in the child of a fork (the sleepers are not there any more).
    pub struct RawFutexMutex(State);

    // SAFETY: `State` gives mutual exclusion (F1 and F2 of its module, and its loom model).
    unsafe impl lock_api::RawMutex for RawFutexMutex {
        #[allow(clippy::declare_interior_mutable_const)] // lock_api asks for a constant
        const INIT: Self = Self(State::new());
        type GuardMarker = lock_api::GuardSend;

        #[inline]
        fn lock(&self) {
            self.0.lock(&Kernel);
        }
        #[inline]
        fn try_lock(&self) -> bool {
            self.0.try_lock()
        }
        #[inline]
        unsafe fn unlock(&self) {
            // SAFETY: passed on to the caller.
            unsafe { self.0.unlock(&Kernel) }
        }
        #[inline]
        fn is_locked(&self) -> bool {
            self.0.is_locked()
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
