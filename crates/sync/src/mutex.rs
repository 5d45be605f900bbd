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
        // SAFETY: the caller holds the lock without a guard.
        unsafe { mutex.force_unlock() }
    }
}

#[cfg(tiermalloc_loom)]
mod imp {
    use core::marker::PhantomData;

    /// Stands for the futex lock, which loom replaces by its own.
    pub struct RawFutexMutex;
    /// The same under loom.
    pub type DefaultRawMutex = RawFutexMutex;

    /// loom's lock under the name that the tiers use; `R` has no meaning here.
    pub struct Mutex<R, T> {
        inner: loom::sync::Mutex<T>,
        raw: PhantomData<fn() -> R>,
    }
    /// The proof of holding a [`Mutex`].
    pub type MutexGuard<'a, R, T> = Guard<'a, R, T>;

    /// loom's guard, with the parameter that lock_api's has.
    pub struct Guard<'a, R, T>(loom::sync::MutexGuard<'a, T>, PhantomData<fn() -> R>);

    impl<R, T> core::ops::Deref for Guard<'_, R, T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }
    impl<R, T> core::ops::DerefMut for Guard<'_, R, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    impl<R, T> Mutex<R, T> {
        /// A new lock around `value`.
        pub fn new(value: T) -> Self {
            Self { inner: loom::sync::Mutex::new(value), raw: PhantomData }
        }
        /// Waits for the lock.
        pub fn lock(&self) -> Guard<'_, R, T> {
            Guard(self.inner.lock().unwrap(), PhantomData)
        }
        /// The lock, if it is free.
        pub fn try_lock(&self) -> Option<Guard<'_, R, T>> {
            self.inner.try_lock().ok().map(|g| Guard(g, PhantomData))
        }
        /// The value, without locking: nobody else can hold it.
        pub fn get_mut(&mut self) -> &mut T {
            self.inner.get_mut().unwrap()
        }
    }

    /// Fork does not exist under loom; kept so that callers compile.
    pub fn leak_locked<R, T>(_: &Mutex<R, T>) {}

    /// Fork does not exist under loom; kept so that callers compile.
    ///
    /// # Safety
    /// None needed.
    pub unsafe fn force_unlock<R, T>(_: &Mutex<R, T>) {}
}

pub use imp::*;
