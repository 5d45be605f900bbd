//! Memory goes back to the system while the program does something else, or nothing.
//!
//! When free pages pile up a thread comes, looks at them every so often, gives back half of what nobody has
//! wanted since its last look, and ends when next to nothing is left. A program pays for it with a few
//! system calls each time that it comes; one that always uses what it frees, with some instructions a
//! second. The thread is no thread of the C library's (see `tiermalloc_sync::worker`): the program is not
//! made one of several threads by it, and may end, fork or exec as if it was not there.
//!
//! Before it touches the heap it takes the *gate*, which a fork takes too: so it is nowhere in the middle
//! of anything when the child is made. It takes the gate for one step at a time.
//!
//! # Invariants
//! - B1: the thread touches the heap with the gate in its hands only.
//! - B2: it runs no code that depends on which thread it runs in: no TLS, no `errno`.

use tiermalloc_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tiermalloc_sync::errand::Errand;
use tiermalloc_sync::{Mutex, RawFutexMutex, force_unlock, leak_locked, sys};

/// Milliseconds between two looks, while some of what there is lies idle.
const PERIOD_MS: u64 = 500;
/// And while none does, at most: then there is little to be missed.
const LAZY_MS: u64 = 2000;
/// Free dirty pages that are not worth the trouble (512 KiB).
const KEEP: usize = 64;
/// Pages of one step (4 MiB): while it lasts, nobody can have them, and no fork can be made.
const STEP: usize = 512;
/// Looks in a row that have found nothing, after which the thread ends.
const LOOKS: u32 = 4;
/// Milliseconds for which no other try is made when the system has no thread to give.
const PAUSE_MS: u64 = 10_000;

static ERRAND: Errand = Errand::new();
/// The thread's bed: it sleeps while this is `ON`.
static SWITCH: AtomicU32 = AtomicU32::new(ON);
const ON: u32 = 0;
const OFF: u32 = 1;
/// When a thread may be asked for again, by the coarse clock.
static NOT_BEFORE: AtomicU64 = AtomicU64::new(0);
static GATE: Mutex<RawFutexMutex, ()> = Mutex::new(());

/// Asked by the page heap while there is something to give back: whether somebody will.
pub(crate) fn keeper() -> bool {
    if SWITCH.load(Ordering::Relaxed) == OFF || !crate::config::get().background {
        return false;
    }
    if ERRAND.ask() && !bring() {
        ERRAND.fail();
        return false;
    }
    true
}

#[cold]
fn bring() -> bool {
    let now = sys::now_ms();
    if now < NOT_BEFORE.load(Ordering::Relaxed) {
        return false;
    }
    let brought = thread::start();
    if !brought {
        NOT_BEFORE.store(now + PAUSE_MS, Ordering::Relaxed);
    }
    brought
}

/// The thread.
extern "C" fn work() {
    let (mut period, mut nothing) = (PERIOD_MS, 0);
    let mut moves = None;
    while SWITCH.load(Ordering::Relaxed) == ON {
        sys::futex_wait_for(&SWITCH, ON, period);
        ERRAND.begin();
        moves = take_down_idle(moves);
        let idle = look();
        period = if idle > 0 { PERIOD_MS } else { LAZY_MS.min(period * 2) };
        nothing = if idle > 0 || dirty_pages() > KEEP { 0 } else { nothing + 1 };
        if nothing >= LOOKS && ERRAND.leave() {
            return;
        }
    }
}

/// Takes the caches down that have waited for a thread since the last look. Returns what to compare with
/// at the next one.
fn take_down_idle(moves: Option<u32>) -> Option<u32> {
    let _gate = GATE.lock();
    if moves == Some(crate::parked::moves()) {
        crate::thread::take_down_parked();
    }
    Some(crate::parked::moves())
}

fn dirty_pages() -> usize {
    let _gate = GATE.lock();
    crate::state::heap().stats().dirty_pages
}

/// Gives back half of what has been idle since the last look. Returns how much has been (pages).
fn look() -> usize {
    let heap = crate::state::heap();
    for class in tiermalloc_size_class::Class::all() {
        let _gate = GATE.lock();
        crate::slow::certain(crate::state::CENTRAL.plunder(class));
    }
    let look = {
        let _gate = GATE.lock();
        heap.look()
    };
    if look.idle <= KEEP {
        return 0;
    }
    // Where nothing at all was wanted, small pieces go as well.
    let (wanted, all_idle) = (look.idle.div_ceil(2), look.idle == look.dirty);
    let mut released = 0;
    while released < wanted && SWITCH.load(Ordering::Relaxed) == ON {
        let _gate = GATE.lock();
        match heap.release_step((wanted - released).min(STEP), all_idle) {
            Some(pages) => released += pages,
            None => break,
        }
    }
    released
}

/// No thread from here on: the library is about to be unloaded.
pub(crate) fn stop() {
    SWITCH.store(OFF, Ordering::Relaxed);
    sys::futex_wake_one(&SWITCH);
    thread::join();
}

/// Before a fork: the thread is nowhere, and stays there.
pub(crate) fn lock_for_fork() {
    leak_locked(&GATE);
}

/// [`lock_for_fork`] in a handler that may have interrupted this very allocator, for whose lock the thread
/// may be waiting: not for ever. `false`: it waits in vain. What it has in its hands then is lost to the child.
pub(crate) fn try_lock_for_fork() -> bool {
    for _ in 0..50 {
        if let Some(gate) = GATE.try_lock() {
            core::mem::forget(gate);
            return true;
        }
        sys::futex_wait_for(&SWITCH, ON, 1);
    }
    false
}

/// After a fork, on both sides.
///
/// # Safety
/// This thread has the gate for the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { force_unlock(&GATE) };
}

/// In the child of a fork, before anything else there: the thread does not exist.
///
/// # Safety
/// This is the child, and its only thread.
pub(crate) unsafe fn forget(gate_is_mine: bool) {
    // SAFETY: passed on to the caller. Whoever else had the gate does not exist.
    unsafe {
        thread::forget();
        if !gate_is_mine && GATE.is_locked() {
            force_unlock(&GATE);
        }
    }
    ERRAND.fail();
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod thread {
    use tiermalloc_sync::worker::Worker;

    static WORKER: Worker = Worker::new();

    pub(super) fn start() -> bool {
        // The one before has said that it leaves and may still be on its way out.
        WORKER.join();
        // SAFETY: B2, and `stop` comes before the code is unloaded.
        unsafe { WORKER.start(super::work) }
    }

    pub(super) fn join() {
        WORKER.join();
    }

    /// # Safety
    /// This is the child of a fork, and its only thread.
    pub(super) unsafe fn forget() {
        // SAFETY: passed on to the caller.
        unsafe { WORKER.forget() };
    }
}

/// Without such threads the page heap looks after itself, as far as it can.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod thread {
    pub(super) fn start() -> bool {
        let _ = super::work;
        false
    }

    pub(super) fn join() {}

    /// # Safety
    /// None is needed.
    pub(super) unsafe fn forget() {}
}
