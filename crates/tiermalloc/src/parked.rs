//! Caches of threads that have ended, kept for those that come next.
//!
//! A thread that ends gives back what it has cached, object by object where a bin holds no whole batch, and
//! the next one begins with nothing. Where threads come and go that is most of their cost. So the caches of
//! the last few, if they are small, wait here as they are, and a thread that comes takes one over.
//!
//! Invariant K1: a cache is in the hands of its thread, registered; or here, with no thread; or gone.

use core::ptr::NonNull;

use tiermalloc_sync::{Mutex, Patience, RawFutexMutex, force_unlock, leak_locked, lock_within};
use tiermalloc_thread_cache::ThreadCache;

/// Caches that wait at most.
const MOST: usize = 8;
/// The largest that may wait (bytes of all its bins' room).
const LARGEST: usize = 256 << 10;

struct Parked {
    caches: [Option<NonNull<ThreadCache>>; MOST],
    count: usize,
    /// How often one has come or gone.
    moves: u32,
}

// SAFETY: the caches belong to nobody else (K1).
unsafe impl Send for Parked {}

static PARKED: Mutex<RawFutexMutex, Parked> =
    Mutex::new(Parked { caches: [None; MOST], count: 0, moves: 0 });

/// Keeps the cache of a thread that ends; `false`: there is no room, or it is too large.
///
/// # Safety
/// The cache is the caller's, who does not use it any more, and it is not registered.
pub(crate) unsafe fn keep(cache: NonNull<ThreadCache>) -> bool {
    // SAFETY: passed on to the caller.
    if unsafe { cache.as_ref() }.used() > LARGEST || crate::state::heap().is_tight() {
        return false;
    }
    let mut parked = PARKED.lock();
    let count = parked.count;
    let Some(place) = parked.caches.get_mut(count) else { return false };
    *place = Some(cache);
    parked.count += 1;
    parked.moves = parked.moves.wrapping_add(1);
    true
}

/// The cache that has come last.
pub(crate) fn take() -> Option<NonNull<ThreadCache>> {
    let mut parked = PARKED.lock();
    parked.count = parked.count.checked_sub(1)?;
    parked.moves = parked.moves.wrapping_add(1);
    let count = parked.count;
    parked.caches.get_mut(count)?.take()
}

/// How often a cache has come or gone: while that stays the same, those that are here lie idle.
pub(crate) fn moves() -> u32 {
    PARKED.lock().moves
}

/// Calls `each` for every cache that waits, under the lock; `false`: for none, because somebody holds the lock
/// for longer than the caller has patience.
pub(crate) fn for_each(patience: &mut Patience, each: impl FnMut(&ThreadCache)) -> bool {
    match lock_within(&PARKED, patience) {
        Some(parked) => {
            each_of(&parked, each);
            true
        }
        None => false,
    }
}

/// [`for_each`], or nothing where somebody has the lock: it may be the one that a handler has interrupted to
/// end the program.
pub(crate) fn for_each_at_hand(each: impl FnMut(&ThreadCache)) {
    if let Some(parked) = PARKED.try_lock() {
        each_of(&parked, each);
    }
}

fn each_of(parked: &Parked, mut each: impl FnMut(&ThreadCache)) {
    for cache in parked.caches.iter().flatten() {
        // SAFETY: K1: it is here, so nobody else uses it, and it stays while the lock is held.
        each(unsafe { cache.as_ref() });
    }
}

/// Takes the lock and keeps it, before a fork.
pub(crate) fn lock_for_fork() {
    leak_locked(&PARKED);
}

/// Gives the lock up after a fork, in parent and child.
///
/// # Safety
/// [`lock_for_fork`] was called by the thread that forked.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { force_unlock(&PARKED) };
}
