//! A thread's cache: made at its first allocation, taken down at its end.
//!
//! The end is told by a pthread key's destructor. Other destructors may run after it and go on
//! allocating and freeing; for them the thread's word says `DEAD`, and they are served by the central
//! cache, object by object.

use core::ptr::{self, NonNull};

use tiermalloc_central_cache::spread;
use tiermalloc_sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use tiermalloc_sync::{files, sys};
use tiermalloc_thread_cache::ThreadCache;

use crate::config;
use crate::state::{BUDGET, CENTRAL, DEAD, EMPTY, MAP, REGISTRY, heap};
use crate::{background, fork, parked, pools, report, slow, tls};

/// The pthread key plus one; 0 while there is none, `MAKING` while one thread makes it.
static KEY: AtomicU32 = AtomicU32::new(0);
const MAKING: u32 = u32::MAX;

/// Free dirty pages that the end of a thread leaves in place: what the next thread will want (1 MiB).
const KEEP_AT_EXIT: usize = 128;
/// So many threads at once are a crowd, after which it is worth tidying up, if they are
const MANY: usize = 8;
/// so many for each processor too: as many as can run at once will most likely come again.
const MANY_EACH: usize = 2;
/// Free dirty pages (16 MiB) that the last of many leaves to the thread in the background, if there is one.
const MUCH: usize = 2048;
/// The most threads at once since the last tidying up.
static MOST_THREADS: AtomicUsize = AtomicUsize::new(0);
/// Threads that have allocated.
static EVER: AtomicUsize = AtomicUsize::new(0);
/// Processors that share a shard of the central cache, if nothing else is configured.
const FOR_EACH: usize = 4;
/// Bytes that caches may hold for each shard, at least.
const WORTH_A_SHARD: usize = 8 << 20;
/// Processors that the program could run on when it began.
static PROCESSORS: AtomicUsize = AtomicUsize::new(1);
/// Caches that have been made.
static CACHES: AtomicUsize = AtomicUsize::new(0);

/// The calling thread's cache, made now if need be; `None` at its end, without memory, or where the pool
/// gives threads none.
#[inline]
pub(crate) fn current() -> Option<&'static ThreadCache> {
    let cache = tls::cache();
    if cache == EMPTY.as_ptr() {
        return create();
    }
    if cache == DEAD.as_ptr() {
        return None;
    }
    // SAFETY: G1: it is the thread's own, which lives until `exit` below.
    Some(unsafe { &*cache })
}

/// The calling thread's cache, if it has one.
#[inline]
pub(crate) fn own() -> Option<&'static ThreadCache> {
    let cache = tls::cache();
    if cache == EMPTY.as_ptr() || cache == DEAD.as_ptr() {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { &*cache })
}

/// [`own`], as a pointer.
pub(crate) fn existing() -> Option<NonNull<ThreadCache>> {
    let cache = tls::cache();
    if cache == EMPTY.as_ptr() || cache == DEAD.as_ptr() {
        return None;
    }
    NonNull::new(cache.cast_mut())
}

/// Threads that have allocated so far.
pub(crate) fn ever() -> usize {
    EVER.load(Ordering::Relaxed)
}

/// Bytes of a cache, in whole pages.
const PAGES: usize = tiermalloc_size_class::pages_for(size_of::<ThreadCache>());

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn create() -> Option<&'static ThreadCache> {
    if !config::get().pool.caches() {
        // For good, without a key: nothing has to be taken down at the thread's end.
        tls::set_cache(DEAD.as_ptr());
        // Relaxed: a number.
        EVER.fetch_add(1, Ordering::Relaxed);
        fork::install();
        report::install();
        background::begin();
        pools::open();
        return None;
    }
    fork::adopt_one();
    let cache = parked::take().or_else(fresh)?;
    // The word first: what follows may allocate, and then finds the cache in place.
    tls::set_cache(cache.as_ptr());
    // Relaxed: a number. A thread for whose cache there is no memory comes here again and again, and is counted once.
    EVER.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the cache stays until `exit`, and is the thread's own.
    unsafe {
        cache.as_ref().hand_to(files::thread());
        REGISTRY.add(cache);
    }
    fork::install();
    report::install();
    if let Some(key) = key() {
        // SAFETY: the key exists for the rest of the process.
        unsafe { libc::pthread_setspecific(key, cache.as_ptr().cast()) };
    }
    background::begin();
    // SAFETY: written above, and the thread's own.
    Some(unsafe { cache.as_ref() })
}

/// An empty cache in pages of its own, so that they can go back to the system with the thread.
fn fresh() -> Option<NonNull<ThreadCache>> {
    // SAFETY: the span was just allocated, so its record is valid.
    let (address, zeroed) = unsafe {
        let span = heap().alloc_large(PAGES, 1)?;
        (span.as_ref().address(), span.as_ref().was_zeroed())
    };
    let cache = NonNull::new(address as *mut ThreadCache)?;
    if !zeroed {
        // SAFETY: fresh memory of that size. All zero is an empty cache.
        unsafe { cache.write_bytes(0, 1) };
    }
    // SAFETY: written above, and nobody else's yet.
    unsafe { cache.as_ref() }.endow(&BUDGET);
    // Relaxed: a number.
    let place = CACHES.fetch_add(1, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { cache.as_ref() }.set_place(spread(place));
    // A program of one thread has no use for more than one shard.
    if place > 0 {
        CENTRAL.widen(most_shards().min(place + 1));
    }
    Some(cache)
}

/// Asks how many processors the program may run on, and remembers it: at its begin, before it says where its threads may
/// run, each on a processor of its own.
pub(crate) fn count_processors() -> usize {
    let processors = sys::processors();
    PROCESSORS.store(processors, Ordering::Relaxed);
    processors
}

/// As many shards as are configured, or else one for so many processors as the program could run on when it began, as
/// far as what caches may hold is worth dividing.
fn most_shards() -> usize {
    let shards = match config::get().shards {
        0 => PROCESSORS.load(Ordering::Relaxed) / FOR_EACH,
        shards => shards,
    };
    shards.min(BUDGET.total() / WORTH_A_SHARD)
}

/// The number by which the calling thread's shard of the central cache is found.
pub(crate) fn place() -> usize {
    // SAFETY: the thread's own, or one that all share and nobody writes to.
    unsafe { (*tls::cache()).place() }
}

/// The key, if it has been made.
pub(crate) fn key_if_ready() -> Option<libc::pthread_key_t> {
    match KEY.load(Ordering::Acquire) {
        0 | MAKING => None,
        key => Some((key - 1) as libc::pthread_key_t),
    }
}

/// The key, made now if need be. `None` when the process has no keys left: then caches outlive their
/// threads, which costs memory and nothing else.
pub(crate) fn key() -> Option<libc::pthread_key_t> {
    loop {
        match KEY.compare_exchange(0, MAKING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                let mut key: libc::pthread_key_t = 0;
                // Making a key does not allocate, so nobody waits below for long, or for itself.
                // SAFETY: `key` is writable and `exit` has the right type.
                let made = unsafe { libc::pthread_key_create(&raw mut key, Some(exit)) } == 0;
                KEY.store(if made { key as u32 + 1 } else { 0 }, Ordering::Release);
                return made.then_some(key);
            }
            // Not for ever: see `forget_making`.
            Err(MAKING) => tiermalloc_sync::spin_hint(),
            Err(key) => return Some((key - 1) as libc::pthread_key_t),
        }
    }
}

/// In the child of a fork: the thread that was making the key, if one was, does not exist.
pub(crate) fn forget_making() {
    let _ = KEY.compare_exchange(MAKING, 0, Ordering::Relaxed, Ordering::Relaxed);
}

/// See [`crate::forget_threads`]. A key is made anew if a thread comes later.
pub(crate) fn delete_key() {
    if let Some(key) = key_if_ready() {
        KEY.store(0, Ordering::Release);
        // SAFETY: the key exists, and from here on nobody finds it.
        unsafe { libc::pthread_key_delete(key) };
    }
}

/// The key's destructor: the end of the thread, as far as the allocator is told.
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe extern "C" fn exit(value: *mut libc::c_void) {
    let Some(cache) = NonNull::new(value.cast::<ThreadCache>()) else { return };
    if ptr::eq(cache.as_ptr(), DEAD.as_ptr()) || ptr::eq(cache.as_ptr(), EMPTY.as_ptr()) {
        tls::set_cache(DEAD.as_ptr());
        return;
    }
    // From here on the thread is served without a cache.
    tls::set_cache(DEAD.as_ptr());
    // SAFETY: it was registered, and the value was the thread's own cache, which nobody uses after the
    // line above.
    unsafe {
        let left = REGISTRY.remove(cache);
        cache.as_ref().release_unused(&BUDGET);
        let place = cache.as_ref().place();
        let mut before = usize::MAX;
        if !parked::keep(cache) {
            before = heap().stats().dirty_pages;
            take_down(cache);
        }
        // Threads too short for a scavenge of their own leave the transfer caches to somebody as well.
        slow::certain(CENTRAL.near(place).plunder_next());
        give_back(before, left);
    }
}

/// Gives back all that a cache holds, and itself.
///
/// # Safety
/// The cache is the caller's, and not registered.
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe fn take_down(cache: NonNull<ThreadCache>) {
    // SAFETY: passed on to the caller.
    let retired = unsafe {
        let central = CENTRAL.near(cache.as_ref().place());
        cache.as_ref().retire(&central, &BUDGET)
    };
    slow::certain(retired);
    dispose(cache);
}

/// Takes down the caches that wait for threads to come.
pub(crate) fn take_down_parked() {
    while take_down_one() {}
}

/// Takes down one of them; `false`: there is none.
pub(crate) fn take_down_one() -> bool {
    let Some(cache) = parked::take_newest() else { return false };
    // SAFETY: nobody else has it, and it was taken out of the registry at its thread's end.
    unsafe { take_down(cache) };
    true
}

/// What goes back to the system at the end of a thread: about as much as it has left behind, so that
/// a thread that comes and goes beside others does not cost them theirs; or, when it was the last of
/// many, nearly all.
fn give_back(dirty_before: usize, threads_left: usize) {
    let crowd = MANY.max(MANY_EACH * PROCESSORS.load(Ordering::Relaxed));
    let many = MOST_THREADS.fetch_max(threads_left + 1, Ordering::Relaxed) >= crowd;
    if many && threads_left <= 1 {
        MOST_THREADS.store(0, Ordering::Relaxed);
        take_down_parked();
        CENTRAL.free_kept_spans();
        // The caller should not have to wait for that much.
        if heap().stats().dirty_pages > MUCH && background::keeper() {
            return;
        }
        if heap().is_paced() {
            heap().release_idle(heap().stats().dirty_pages.saturating_sub(KEEP_AT_EXIT));
        } else {
            heap().release_down_to_worth(KEEP_AT_EXIT);
        }
        return;
    }
    let dirty = heap().stats().dirty_pages;
    // Threads that come and go use again what those before them have left; what none of them uses, the
    // thread in the background will find.
    if dirty > KEEP_AT_EXIT && !background::keeper() {
        heap().release_idle(dirty.saturating_sub(dirty_before.max(KEEP_AT_EXIT)));
    }
}

/// Gives a cache's memory back to the page heap.
pub(crate) fn dispose(cache: NonNull<ThreadCache>) {
    debug_assert!(MAP.span(cache.as_ptr() as usize).is_some());
    // SAFETY: it was allocated there by `create`, and nobody uses it any more.
    let _ = unsafe { heap().free_large(cache.as_ptr() as usize) };
}

/// Bytes that a cache takes.
pub(crate) const CACHE_BYTES: usize = PAGES * tiermalloc_size_class::PAGE_SIZE;
