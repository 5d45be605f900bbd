//! Fork in the middle of everything.
//!
//! Before a fork every lock is taken, in lock order, so that the child finds every list whole. After
//! it both sides give them up. In the child the other threads do not exist; their caches are set
//! aside and given back piece by piece, when the child takes memory or makes threads. A child that
//! only calls exec never pays for them.
//!
//! The first lock is the gate of the thread that gives memory back (see `background`).
//!
//! A process of one thread takes no other locks: nobody else can hold one, and where a signal's handler forks
//! while it interrupts the allocator, waiting for that one would be for ever.

use tiermalloc_sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tiermalloc_sync::files;
use tiermalloc_thread_cache::Orphans;

use crate::state::{BUDGET, CENTRAL, REGISTRY, heap};
use crate::{background, config, parked, pools, report, thread};

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Forks made by this process.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// How many these are.
pub(crate) fn count() -> usize {
    FORKS.load(Ordering::Relaxed)
}

/// Caches of threads that a fork has cut off.
static ORPHANS: Orphans = Orphans::new();

/// Registers the handlers, once. May allocate, so it is called with a cache in place and no lock.
pub(crate) fn install() {
    install_by(|prepare, parent, child| {
        // SAFETY: the handlers have the right type and stay loaded. When registering fails, a fork
        // of a process with several threads is as unsafe as in most allocators.
        unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

/// See [`crate::prepare_for_fork_by`].
pub(crate) fn install_by(register: impl FnOnce(Handler, Handler, Handler)) {
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        register(prepare, parent, child);
        background::own();
    }
}

/// A fork handler.
pub(crate) type Handler = unsafe extern "C" fn();

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<Handler>,
        parent: Option<Handler>,
        child: Option<Handler>,
    ) -> libc::c_int;
}

/// Whether the fork that is under way took no locks.
static WITHOUT_LOCKS: AtomicBool = AtomicBool::new(false);
/// Whether it has the gate of the thread that gives memory back.
static HAVE_GATE: AtomicBool = AtomicBool::new(false);

/// Whether the process has one thread, as far as its C library knows.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn is_alone() -> bool {
    let flag: *const u8;
    // A weak reference: older and other C libraries do not have it.
    // SAFETY: reads an entry of the table that the loader has filled, null where there is no such
    // symbol; the symbol is a byte.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            ".weak __libc_single_threaded",
            "mov {0}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
            out(reg) flag,
            options(nomem, nostack, preserves_flags)
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            ".weak __libc_single_threaded",
            "adrp {0}, :got:__libc_single_threaded",
            "ldr {0}, [{0}, #:got_lo12:__libc_single_threaded]",
            out(reg) flag,
            options(nomem, nostack, preserves_flags)
        );
        !flag.is_null() && flag.read_volatile() != 0
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn is_alone() -> bool {
    false
}

/// Takes every lock, in order.
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe extern "C" fn prepare() {
    // Relaxed: a number.
    FORKS.fetch_add(1, Ordering::Relaxed);
    let alone = is_alone();
    WITHOUT_LOCKS.store(alone, Ordering::Relaxed);
    if alone {
        HAVE_GATE.store(background::try_lock_for_fork(), Ordering::Relaxed);
        return;
    }
    background::lock_for_fork();
    HAVE_GATE.store(true, Ordering::Relaxed);
    pools::lock_for_fork();
    parked::lock_for_fork();
    REGISTRY.lock_for_fork();
    CENTRAL.lock_for_fork();
    heap().lock_for_fork();
}

/// Gives them up, in the other order.
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe extern "C" fn parent() {
    // SAFETY: `prepare` took them in this thread.
    unsafe {
        if !WITHOUT_LOCKS.load(Ordering::Relaxed) {
            heap().unlock_after_fork();
            CENTRAL.unlock_after_fork();
            REGISTRY.unlock_after_fork();
            parked::unlock_after_fork();
            pools::unlock_after_fork();
        }
        if HAVE_GATE.load(Ordering::Relaxed) {
            background::unlock_after_fork();
        }
    }
}

/// Gives them up in the child, and sets the other threads' caches aside.
unsafe extern "C" fn child() {
    // SAFETY: the thread that forked took them, and it is the only one here.
    unsafe {
        background::forget(HAVE_GATE.load(Ordering::Relaxed));
        parent();
    }
    FORKS.store(0, Ordering::Relaxed);
    report::after_fork();
    if let Some(cache) = thread::existing() {
        // SAFETY: the cache is the thread's own, which has another number here.
        unsafe { cache.as_ref() }.hand_to(files::thread());
    }
    if WITHOUT_LOCKS.load(Ordering::Relaxed) {
        return;
    }
    heap().forget_moving();
    thread::forget_making();
    config::forget_deciding();
    if let Some(others) = REGISTRY.take_all_but(thread::existing()) {
        // SAFETY: their threads do not exist here, and the registry has let go of them.
        unsafe { ORPHANS.add(others) };
    }
}

/// Gives the objects of one orphaned cache back, if there is one.
#[inline]
pub(crate) fn adopt_one() {
    if !ORPHANS.is_empty() {
        adopt_one_slow();
    }
}

/// Gives the objects of all orphaned caches back.
#[cold]
pub(crate) fn adopt_all() {
    while !ORPHANS.is_empty() {
        adopt_one_slow();
    }
}

#[cold]
#[inline(never)]
fn adopt_one_slow() -> bool {
    let Some(orphan) = ORPHANS.take() else { return false };
    // SAFETY: taken off the list, so ours alone.
    unsafe {
        orphan
            .as_ref()
            .salvage(&CENTRAL, &BUDGET, |class, object| CENTRAL.is_object(class, object as usize));
    }
    thread::dispose(orphan);
    true
}
