//! Caches of threads that have ended, kept for those that come next.
//!
//! A thread that ends gives back what it has cached, object by object where a bin holds no whole batch, and
//! the next one begins with nothing. Where threads come and go that is most of their cost. So the caches of
//! the last few, if they are small, wait here as they are, and a thread that comes takes one over. Not any: what is
//! in it lies beside objects that the thread before it has left behind, in cache lines of both. Of two threads
//! that took each other's, and go on with what those before them have left, each would write into the other's
//! lines for good. So a thread gets the cache of the one whose stack it has got, which the C library gives on at
//! once to whom waited for its end; or else one from its processor.
//!
//! Invariant K1: a cache is in the hands of its thread, registered; or here, with no thread; or gone.

use core::ptr::NonNull;

use tiermalloc_sync::{Mutex, Patience, RawFutexMutex, force_unlock, leak_locked, lock_within};
use tiermalloc_thread_cache::ThreadCache;

/// Caches that wait at most.
const MOST: usize = 8;
/// The largest that may wait: bytes of what is in it,
const LARGEST: usize = 512 << 10;
/// and of what its bins have room for, which others cannot have meanwhile.
const MOST_ROOM: usize = 2048 << 10;
/// or a part of what one thread may claim.
const PART: usize = 8;

/// A cache that waits, and whom for.
#[derive(Clone, Copy)]
struct Waiting {
    cache: NonNull<ThreadCache>,
    /// Where its thread had its stack,
    stack: usize,
    /// and on which processor it has run last.
    processor: i32,
}

struct Parked {
    /// The first `count` are there, the newest last.
    caches: [Option<Waiting>; MOST],
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
    let record = unsafe { cache.as_ref() };
    if crate::state::heap().is_tight()
        || record.used() > MOST_ROOM.min(crate::state::BUDGET.per_thread() / PART)
        || record.used() > LARGEST && record.cached_bytes() > LARGEST
    {
        return false;
    }
    // The C library is asked before the lock is taken: a program may have put itself in its place.
    let waiting = Waiting { cache, stack: stack(), processor: processor() };
    let mut parked = PARKED.lock();
    let count = parked.count;
    let Some(place) = parked.caches.get_mut(count) else { return false };
    *place = Some(waiting);
    parked.count += 1;
    parked.moves = parked.moves.wrapping_add(1);
    true
}

/// A cache that waits: that of the thread whose stack the calling one has got, or else the newest from its
/// processor, or else the newest.
pub(crate) fn take() -> Option<NonNull<ThreadCache>> {
    if PARKED.lock().count == 0 {
        return None;
    }
    let (stack, processor) = (stack(), processor());
    take_by(|parked| {
        let newest = |fits: &dyn Fn(&Waiting) -> bool| {
            parked.caches.iter().rposition(|waiting| waiting.as_ref().is_some_and(fits))
        };
        newest(&|waiting| waiting.stack == stack)
            .or_else(|| newest(&|waiting| waiting.processor == processor))
    })
}

/// The newest that waits. For whoever is no thread of the C library's, too.
pub(crate) fn take_newest() -> Option<NonNull<ThreadCache>> {
    take_by(|_| None)
}

/// The one at the place that `choose` names, or else the newest.
fn take_by(choose: impl FnOnce(&Parked) -> Option<usize>) -> Option<NonNull<ThreadCache>> {
    let mut parked = PARKED.lock();
    let last = parked.count.checked_sub(1)?;
    let place = choose(&parked).unwrap_or(last);
    let taken = parked.caches.get_mut(place)?.take();
    // Those that came later move up.
    parked.caches.get_mut(place..=last)?.rotate_left(1);
    parked.count = last;
    parked.moves = parked.moves.wrapping_add(1);
    taken.map(|waiting| waiting.cache)
}

/// What the C library knows the calling thread by, which lies in its stack: it gives those of ended threads to
/// the next ones.
fn stack() -> usize {
    // SAFETY: the function has no conditions.
    unsafe { libc::pthread_self() as usize }
}

/// The processor that the calling thread runs on at this moment; -1: not known.
fn processor() -> i32 {
    #[cfg(target_os = "linux")]
    // SAFETY: the function has no conditions, and takes no lock.
    unsafe {
        libc::sched_getcpu()
    }
    #[cfg(not(target_os = "linux"))]
    -1
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
    for waiting in parked.caches.iter().flatten() {
        // SAFETY: K1: it is here, so nobody else uses it, and it stays while the lock is held.
        each(unsafe { waiting.cache.as_ref() });
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
