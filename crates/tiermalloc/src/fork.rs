//! Fork in the middle of everything.
//!
//! Before a fork every lock is taken, in lock order, so that the child finds every list whole. After
//! it both sides give them up. In the child the other threads do not exist; their caches are set
//! aside and given back piece by piece, when the child takes memory or makes threads. A child that
//! only calls exec never pays for them.
//!
//! A process of one thread takes no locks: nobody else can hold one, and where a signal's handler forks
//! while it interrupts the allocator, waiting for that one would be for ever.

use core::ptr::{self, NonNull};

use tiermalloc_central_cache::RawLock;
use tiermalloc_sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use tiermalloc_thread_cache::{Registry, ThreadCache};

use crate::state::{BUDGET, CENTRAL, REGISTRY, heap};
use crate::{config, hardened, thread};

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Caches of threads that a fork has cut off, linked as the registry leaves them.
static ORPHANS: AtomicPtr<ThreadCache> = AtomicPtr::new(ptr::null_mut());

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
unsafe extern "C" fn prepare() {
    let alone = is_alone();
    WITHOUT_LOCKS.store(alone, Ordering::Relaxed);
    if alone {
        return;
    }
    hardened::lock_for_fork();
    REGISTRY.lock_for_fork();
    CENTRAL.lock_for_fork();
    heap().lock_for_fork();
}

/// Gives them up, in the other order.
unsafe extern "C" fn parent() {
    if WITHOUT_LOCKS.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: `prepare` took them in this thread.
    unsafe {
        heap().unlock_after_fork();
        CENTRAL.unlock_after_fork();
        REGISTRY.unlock_after_fork();
        hardened::unlock_after_fork();
    }
}

/// Gives them up in the child, and sets the other threads' caches aside.
unsafe extern "C" fn child() {
    if WITHOUT_LOCKS.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the thread that forked took them, and it is the only one here.
    unsafe { parent() };
    thread::forget_making();
    config::forget_deciding();
    let Some(first) = REGISTRY.take_all_but(thread::existing()) else { return };
    // Behind the orphans of an earlier fork, if any are left.
    let mut last = first;
    // SAFETY: the list is the registry's, and its caches are nobody's.
    while let Some(next) = unsafe { REGISTRY.take_next(last) } {
        last = next;
    }
    link_behind(&REGISTRY, last, ORPHANS.load(Ordering::Relaxed));
    ORPHANS.store(first.as_ptr(), Ordering::Release);
}

fn link_behind<R: RawLock>(
    registry: &Registry<R>,
    last: NonNull<ThreadCache>,
    next: *mut ThreadCache,
) {
    // SAFETY: `last` is nobody's but ours.
    unsafe { registry.link_orphan(last, next) };
}

/// Gives the objects of one orphaned cache back, if there is one.
#[inline]
pub(crate) fn adopt_one() {
    if !ORPHANS.load(Ordering::Relaxed).is_null() {
        adopt_one_slow();
    }
}

#[cold]
#[inline(never)]
fn adopt_one_slow() {
    // One thread takes the whole list, so that none is adopted twice, and puts the rest back.
    let Some(orphan) = NonNull::new(ORPHANS.swap(ptr::null_mut(), Ordering::Acquire)) else {
        return;
    };
    // SAFETY: taken off the list, so ours alone.
    unsafe {
        if let Some(rest) = REGISTRY.take_next(orphan) {
            put_back(rest);
        }
        orphan
            .as_ref()
            .salvage(&CENTRAL, &BUDGET, |class, object| CENTRAL.is_object(class, object as usize));
    }
    thread::dispose(orphan);
}

/// Puts orphans back in front of those that a fork has brought meanwhile.
fn put_back(first: NonNull<ThreadCache>) {
    let mut last = first;
    // SAFETY: the list is ours.
    while let Some(next) = unsafe { REGISTRY.take_next(last) } {
        last = next;
    }
    let meanwhile = ORPHANS.load(Ordering::Relaxed);
    link_behind(&REGISTRY, last, meanwhile);
    if ORPHANS
        .compare_exchange(meanwhile, first.as_ptr(), Ordering::Release, Ordering::Relaxed)
        .is_err()
    {
        // Another fork in this very moment; these stay lost, which costs memory and nothing else.
        link_behind(&REGISTRY, last, ptr::null_mut());
    }
}
