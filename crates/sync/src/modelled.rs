//! The lock under the models: loom's, and what a fork makes of it.
//!
//! loom knows no processes. A model of a fork takes every lock by [`leak_locked`], as the facade does
//! before a fork, and goes on in one of two roles: as the parent it gives them up again, and that is all;
//! as the child it calls [`child`] first. From then on the process has one thread, the calling one: every
//! other one ends at its next lock, before it has seen what the lock protects. It ends by a panic, for
//! which the threads of such a model run [`until_cut_off`].

use core::marker::PhantomData;
use core::mem::transmute;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::thread::{ThreadId, current};

/// Stands for the futex lock, which loom replaces by its own.
pub struct RawFutexMutex;
/// The same under loom.
pub type DefaultRawMutex = RawFutexMutex;

/// loom's lock under the name that the tiers use; `R` has no meaning here.
pub struct Mutex<R, T: 'static> {
    /// The guard that [`leak_locked`] leaves behind. Its lifetime is a lie that nobody sees: it refers to
    /// `inner`, which is dropped after it and does not move while it is held.
    leaked: RefCell<Option<loom::sync::MutexGuard<'static, T>>>,
    inner: loom::sync::Mutex<T>,
    raw: PhantomData<fn() -> R>,
}

// SAFETY: loom's lock is; `leaked` is touched by its holder only, and loom runs one thread at a time.
unsafe impl<R, T: Send> Sync for Mutex<R, T> {}
// SAFETY: as above; a lock that is held is not moved.
unsafe impl<R, T: Send> Send for Mutex<R, T> {}

/// The proof of holding a [`Mutex`].
pub type MutexGuard<'a, R, T> = Guard<'a, R, T>;

/// loom's guard, with the parameter that lock_api's has.
pub struct Guard<'a, R, T>(loom::sync::MutexGuard<'a, T>, PhantomData<fn() -> R>);

impl<'a, R, T> Guard<'a, R, T> {
    fn new(guard: loom::sync::MutexGuard<'a, T>) -> Self {
        HELD.set(HELD.get() + 1);
        Self(guard, PhantomData)
    }
}

impl<R, T> Drop for Guard<'_, R, T> {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

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

impl<R, T: 'static> Mutex<R, T> {
    /// A new lock around `value`.
    pub fn new(value: T) -> Self {
        let (inner, leaked) = (loom::sync::Mutex::new(value), RefCell::new(None));
        Self { inner, leaked, raw: PhantomData }
    }
    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, R, T> {
        Guard::new(self.acquire())
    }
    fn acquire(&self) -> loom::sync::MutexGuard<'_, T> {
        unless_cut_off(self.inner.lock().unwrap())
    }
    /// The lock, if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, R, T>> {
        Some(Guard::new(unless_cut_off(self.inner.try_lock().ok()?)))
    }
    /// The value, without locking: nobody else can hold it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap()
    }
}

/// Locks and keeps it locked: the first half of a fork handler.
pub fn leak_locked<R, T: 'static>(mutex: &Mutex<R, T>) {
    // SAFETY: only the lifetime changes; see the field.
    let guard = unsafe {
        transmute::<loom::sync::MutexGuard<'_, T>, loom::sync::MutexGuard<'static, T>>(
            mutex.acquire(),
        )
    };
    assert!(mutex.leaked.replace(Some(guard)).is_none(), "one fork at a time");
}

/// Unlocks what [`leak_locked`] locked: the second half, in parent and child.
///
/// # Safety
/// The lock is held through [`leak_locked`] by this thread.
pub unsafe fn force_unlock<R, T: 'static>(mutex: &Mutex<R, T>) {
    assert!(mutex.leaked.take().is_some(), "locked for the fork");
}

/// What a thread that does not exist in the child unwinds with.
struct CutOff;

// loom runs all threads of a model in one of the system's.
std::thread_local! {
    /// Locks that are held, but for those that are held over a fork.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// The one thread of the child, once there is a child.
    static CHILD: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

/// Ends a thread that does not exist, because the process is a child that another one has forked.
fn unless_cut_off<G>(guard: G) -> G {
    if CHILD.get().is_some_and(|child| child != current().id()) {
        drop(guard);
        resume_unwind(Box::new(CutOff));
    }
    guard
}

/// A new execution of a model begins; the one before may have ended as a child.
pub fn begin() {
    HELD.set(0);
    CHILD.set(None);
}

/// From here on the process is a child, and the calling thread its only one. It has every lock, for one
/// that another thread has would stay locked for ever. Nothing else is explored: the child runs alone until
/// it waits for the others, which is its end.
pub fn child() {
    assert_eq!(HELD.get(), 0, "a thread that does not exist in the child holds a lock");
    CHILD.set(Some(current().id()));
    loom::skip_branch();
}

/// Runs what a thread does until it is done, or cut off by [`child`]: `None`.
pub fn until_cut_off<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(panic) if panic.is::<CutOff>() => None,
        Err(panic) => resume_unwind(panic),
    }
}
