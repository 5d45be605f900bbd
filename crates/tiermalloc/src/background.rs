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

use tiermalloc_page_heap::Gone;
use tiermalloc_sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tiermalloc_sync::errand::Errand;
use tiermalloc_sync::{Mutex, MutexGuard, RawFutexMutex, force_unlock, leak_locked, sys};

use crate::config::Background;

/// Between two looks, while some of what there is lies idle, `release_delay` passes; while none does, so many
/// times that at most: then there is little to be missed.
const LAZY: u64 = 4;
/// Free dirty pages that are not worth the trouble (512 KiB).
const KEEP: usize = 64;
/// Pages of one step (4 MiB): while it lasts, nobody can have them, and no fork can be made.
const STEP: usize = 512;
/// Batches of a transfer cache of one step: some thousand objects.
const BATCHES: usize = 64;
/// Looks in a row that have found nothing, after which the thread ends.
const LOOKS: u32 = 4;
/// Milliseconds for which no other try is made when the system has no thread to give.
const PAUSE_MS: u64 = 10_000;
/// Milliseconds that a fork in a process of one thread waits for the gate, if it has to: many times a step,
/// also where others want the processors.
const FORK_MS: u64 = 1000;
/// And the end of the program.
const STOP_MS: u64 = 200;

static ERRAND: Errand = Errand::new();
/// The thread's bed: it sleeps while this stays what it was when it lay down.
static BELL: AtomicU32 = AtomicU32::new(0);
/// Whether there may be a thread.
static SWITCH: AtomicU32 = AtomicU32::new(ON);
const ON: u32 = 0;
const OFF: u32 = 1;
/// When a thread may be asked for again, by the coarse clock.
static NOT_BEFORE: AtomicU64 = AtomicU64::new(0);
/// Those who wait for the gate; the thread lets them pass.
static WANTED: AtomicU32 = AtomicU32::new(0);
/// The process whose thread it is; 0 before its fork handlers are in place.
static OWNER: AtomicU32 = AtomicU32::new(0);
static GATE: Mutex<RawFutexMutex, ()> = Mutex::new(());

/// Asked by the page heap while there is something to give back: whether somebody will.
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) fn keeper() -> bool {
    if SWITCH.load(Ordering::Relaxed) == OFF
        || crate::config::get().background == Background::Off
        || !is_owner()
    {
        return false;
    }
    if ERRAND.ask() && !bring() {
        ERRAND.fail();
        return false;
    }
    true
}

/// [`keeper`] by somebody who does not want to wait until the thread looks by itself, be it a signal's
/// handler: no lock, and nothing that depends on what it has interrupted.
pub(crate) fn call() -> bool {
    let comes = keeper();
    if comes {
        ring();
    }
    comes
}

/// Wakes the thread.
fn ring() {
    // Release: it sees why.
    BELL.fetch_add(1, Ordering::Release);
    sys::futex_wake_one(&BELL);
}

/// Lies down for so many milliseconds, and sees to what is due meanwhile.
fn rest(period: u64) {
    let until = sys::now_ms() + period;
    loop {
        // Acquire: pairs with the release in `ring`.
        let heard = BELL.load(Ordering::Acquire);
        if SWITCH.load(Ordering::Relaxed) == OFF {
            return;
        }
        crate::report::serve(step);
        let left = until.saturating_sub(sys::now_ms());
        if left == 0 {
            return;
        }
        sys::futex_wait_for(&BELL, heard, left.min(crate::report::ms_until_due()).max(1));
    }
}

#[cold]
#[unsafe(link_section = ".text.hot.tiermalloc")]
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

/// At a thread's first allocation: the thread comes at once where it is to be there always.
pub(crate) fn begin() {
    if crate::config::get().background == Background::On {
        keeper();
    }
}

/// The thread.
#[unsafe(link_section = ".text.warm.tiermalloc")]
extern "C" fn work() {
    let config = crate::config::get();
    let (delay, stays) = (config.release_delay.ms(), config.background == Background::On);
    let (mut period, mut nothing) = (delay, 0);
    let mut moves = None;
    loop {
        rest(period);
        ERRAND.begin();
        moves = take_down_idle(moves);
        let Some(Looked { idle, released, rationed }) = look() else { return };
        let Some(dirty) = step().map(|_| crate::state::heap().stats().dirty_pages) else { return };
        period = if idle > 0 { delay } else { (period * 2).min(delay * LAZY) };
        // What the system will not have, as that of a program that has locked its memory, is nothing too.
        let busy = if idle > 0 { released > 0 || rationed } else { dirty > KEEP };
        nothing = if busy { 0 } else { nothing + 1 };
        let ends = nothing >= LOOKS && !stays && !crate::report::needs_thread();
        if ends && ERRAND.leave() {
            return;
        }
    }
}

/// The gate, for one step of the thread; `None`: it is to end.
fn step() -> Option<MutexGuard<'static, RawFutexMutex, ()>> {
    // Who sleeps before a lock that is taken again at once does not get it.
    while WANTED.load(Ordering::Relaxed) > 0 && SWITCH.load(Ordering::Relaxed) == ON {
        sys::sleep(1);
    }
    let gate = GATE.lock();
    // Behind the gate: whoever had it before has been seen to switch off.
    (SWITCH.load(Ordering::Relaxed) == ON).then_some(gate)
}

/// Takes the caches down that have waited for a thread since the last look. Returns what to compare with
/// at the next one.
fn take_down_idle(moves: Option<u32>) -> Option<u32> {
    let now = step().map(|_| crate::parked::moves())?;
    if moves == Some(now) {
        while step().map(|_| crate::thread::take_down_one())? {}
    }
    step().map(|_| crate::parked::moves())
}

/// What a look has found, and what has gone back (pages).
struct Looked {
    idle: usize,
    released: usize,
    /// More would have gone if the rate allowed.
    rationed: bool,
}

/// Gives back half of what has been idle since the last look, which counts if it is worth the trouble. `None`:
/// the thread is to end.
fn look() -> Option<Looked> {
    let heap = crate::state::heap();
    for shard in crate::state::CENTRAL.each_shard() {
        for class in tiermalloc_size_class::Class::all() {
            let mut idle = step().map(|_| shard.start_period(class))?;
            while idle > 0 {
                let _gate = step()?;
                let some = idle.min(BATCHES);
                crate::slow::certain(shard.drain(class, some));
                idle -= some;
            }
        }
        step().map(|_| shard.free_idle_spans())?;
    }
    step().map(|_| heap.return_idle())?;
    let look = step().map(|_| heap.look())?;
    if look.idle <= KEEP {
        return Some(Looked { idle: 0, released: 0, rationed: false });
    }
    // Where nothing at all was wanted, small pieces go as well.
    let (wanted, all_idle) = (look.idle.div_ceil(2), look.idle == look.dirty);
    let (mut released, mut rationed) = (0, false);
    while released < wanted {
        let _gate = step()?;
        match heap.release_idle_step((wanted - released).min(STEP), all_idle) {
            Gone::Pages(pages) => released += pages,
            end => {
                rationed = end == Gone::NotNow;
                break;
            }
        }
    }
    Some(Looked { idle: look.idle, released, rationed })
}

/// From here on the thread, and nobody else, is this process's: its fork handlers are in place.
pub(crate) fn own() {
    OWNER.store(sys::process(), Ordering::Relaxed);
}

/// Whether this is the process that knows of its thread. It is not in a child that has come about past the
/// fork handlers: there is none there, or, where it shares this memory, it is its parent's.
fn is_owner() -> bool {
    OWNER.load(Ordering::Relaxed) == sys::process()
}

/// Whether the caller is the thread.
pub(crate) fn is_caller() -> bool {
    let here = 0u8;
    thread::has_on_stack(&raw const here as usize)
}

/// No thread from here on: the library is about to be unloaded, or the program ends.
pub(crate) fn stop() {
    if !is_owner() {
        return;
    }
    SWITCH.store(OFF, Ordering::Relaxed);
    ring();
    // Whoever has had the gate since the switch is off knows that the thread is in the middle of nothing, and
    // that it does no more than end. Who cannot have it is a handler that has interrupted this very allocator
    // and ends the program: the thread waits for that one's lock, for ever.
    if try_gate(STOP_MS) {
        // SAFETY: taken here.
        unsafe { force_unlock(&GATE) };
        thread::join();
    }
}

/// Takes the gate and keeps it, unless it cannot be had for so many milliseconds.
fn try_gate(ms: u64) -> bool {
    WANTED.fetch_add(1, Ordering::Relaxed);
    let mut have = false;
    for _ in 0..ms {
        if let Some(gate) = GATE.try_lock() {
            core::mem::forget(gate);
            have = true;
            break;
        }
        sys::sleep(1);
    }
    WANTED.fetch_sub(1, Ordering::Relaxed);
    have
}

/// Before a fork: the thread is nowhere, and stays there.
pub(crate) fn lock_for_fork() {
    WANTED.fetch_add(1, Ordering::Relaxed);
    leak_locked(&GATE);
    WANTED.fetch_sub(1, Ordering::Relaxed);
}

/// [`lock_for_fork`] in a handler that may have interrupted this very allocator, for whose lock the thread
/// may be waiting: not for ever. `false`: it waits in vain. What it has in its hands then is lost to the child.
pub(crate) fn try_lock_for_fork() -> bool {
    try_gate(FORK_MS)
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
    WANTED.store(0, Ordering::Relaxed);
    ERRAND.fail();
    own();
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

    pub(super) fn has_on_stack(address: usize) -> bool {
        WORKER.has_on_stack(address)
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

    pub(super) fn has_on_stack(_: usize) -> bool {
        false
    }

    /// # Safety
    /// None is needed.
    pub(super) unsafe fn forget() {}
}
