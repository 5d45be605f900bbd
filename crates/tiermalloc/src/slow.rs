//! The second step of every request: the bin was empty, or full, or there was none.

use core::ptr::{self, NonNull};

use tiermalloc_size_class::{Class, PAGE_SHIFT};
use tiermalloc_thread_cache::{Chain, Misuse, ObjectSource, ThreadCache};

use crate::state::{BUDGET, CENTRAL, Central, MAP, REGISTRY, heap};
use crate::{fatal, fork, guarded, limits, parked, pools, report, thread, tls};

/// Objects of this size and more are cleared only if they need it; smaller ones are cleared faster
/// than that is found out.
const WORTH_ASKING: usize = 8 * 1024;

/// What an allocation path does with a mistake of the program: there is no way on.
pub(crate) fn certain<T>(result: Result<T, Misuse>) -> T {
    match result {
        Ok(value) => value,
        Err(misuse) => fatal::misuse(misuse),
    }
}

/// No memory for a request of `size` bytes: `errno` says so, or the program ends.
#[cold]
#[inline(never)]
pub(crate) fn no_memory(size: usize) -> *mut u8 {
    limits::abort_if_chosen(size);
    set_errno(libc::ENOMEM);
    ptr::null_mut()
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(value: libc::c_int) {
    // SAFETY: the location is the thread's own.
    unsafe { *errno_location() = value };
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use libc::__errno_location as errno_location;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use libc::__error as errno_location;

/// `size` bytes at `align`, for which the class with that id is the one, and whose bin is empty; id 0 stands for a
/// request of no bytes. The arguments are in the order in which the fast paths have them at hand.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) fn alloc(size: usize, id: usize, align: usize) -> *mut u8 {
    report::tick();
    let Some(class) = Class::from_id(id.max(1)) else { return no_memory(0) };
    let object = try_alloc(size, class, align);
    if object.is_null() { no_memory(size) } else { object }
}

/// [`alloc`] of an object of `class`, or null and nothing else.
#[inline]
pub(crate) fn try_alloc(size: usize, class: Class, align: usize) -> *mut u8 {
    match thread::own() {
        Some(cache) => alloc_with(cache, class, false),
        None => alloc_without(size, class, align, false),
    }
}

/// The central cache as it is for the thread of a cache.
#[inline]
fn near(cache: &ThreadCache) -> Central {
    CENTRAL.near(cache.place())
}

/// [`alloc`] in a thread that has a cache: then the class is all that matters. `last`: everything that was cached
/// has been given up.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn alloc_with(cache: &ThreadCache, class: Class, last: bool) -> *mut u8 {
    // Not only for bin 0: making the cache may have filled this bin.
    // SAFETY: the cache is the thread's own.
    let object = unsafe {
        let object = ThreadCache::pop(cache, class.id());
        if !object.is_null() {
            return object;
        }
        certain(cache.refill(class, &near(cache), &BUDGET, &REGISTRY))
    };
    if object.is_null() { alloc_at_last(class.size(), class, 1, last) } else { object }
}

/// [`alloc`] in a thread that has no cache: it gets one now, or does without.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn alloc_without(size: usize, class: Class, align: usize, last: bool) -> *mut u8 {
    if let Some(block) = pools::alloc_by_system(size, align) {
        return block;
    }
    alloc_elsewhere(size, class, align, last)
}

/// [`alloc_without`], the C library apart.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn alloc_elsewhere(size: usize, class: Class, align: usize, last: bool) -> *mut u8 {
    if let Some(cache) = thread::current() {
        return alloc_with(cache, class, last);
    }
    let object = pools::alloc(class, size, align);
    if object.is_null() { alloc_at_last(size, class, align, last) } else { object }
}

/// Once more, with everything that is cached given up; unless that was done before.
#[cold]
#[inline(never)]
fn alloc_at_last(size: usize, class: Class, align: usize, last: bool) -> *mut u8 {
    if last {
        return ptr::null_mut();
    }
    let again = || NonNull::new(alloc_without(size, class, align, true));
    reclaim(class.size(), again).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// [`alloc`] of `size` bytes, all zero.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) fn alloc_zeroed(class: Class, size: usize, align: usize) -> *mut u8 {
    if let Some(object) = pools::alloc_zeroed(class, size, align) {
        if !object.is_null() {
            return object;
        }
    } else if class.size() >= WORTH_ASKING && !CENTRAL.has_batches(class) {
        // What is at hand is cleared faster than the system makes new pages; else it may be new ones anyway,
        // which are zero.
        let central = CENTRAL.near(thread::place());
        if let Some((object, zeroed)) = central.fetch_one(class) {
            certain(central.make_way(class));
            if !zeroed {
                // SAFETY: objects of the class are at least `size` bytes long.
                unsafe { object.write_bytes(0, size) };
            }
            return object.as_ptr();
        }
    }
    let object = alloc(size, class.id(), align);
    if !object.is_null() {
        // SAFETY: as above.
        unsafe { object.write_bytes(0, size) };
    }
    object
}

/// Frees what the fast path could not: null, an address outside the home window, a full bin, whole
/// pages, or no allocation at all.
///
/// # Safety
/// As for `raw::free`.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) unsafe fn free(pointer: *mut u8) {
    let id = MAP.class_id(pointer as usize);
    // SAFETY: passed on to the caller.
    unsafe {
        if id != 0 {
            if !ThreadCache::push(tls::cache(), id, pointer) {
                free_class(id, pointer);
            }
        } else if !pointer.is_null() {
            pools::free_pages(pointer);
        }
    }
}

/// [`free`] of what is said to have that size and alignment.
///
/// # Safety
/// As for `raw::free`.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) unsafe fn free_claimed(pointer: *mut u8, size: usize, align: usize) {
    if !pointer.is_null() {
        pools::check_claim(pointer, size, align);
    }
    // SAFETY: passed on to the caller.
    unsafe { free(pointer) }
}

/// Frees an object into the bin with that id, which is full.
///
/// # Safety
/// `id` is a class's, and `object` one of its live objects.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) unsafe fn free_class(id: usize, object: *mut u8) {
    let Some(class) = Class::from_id(id) else { return };
    // SAFETY: passed on to the caller.
    unsafe {
        match thread::current() {
            Some(cache) => {
                // What has gone so far as to overflow a bin can also be looked at.
                expect_aligned(object, class);
                certain(cache.overflow(class, object, &near(cache), &BUDGET, &REGISTRY));
            }
            None => pools::free(class, object),
        }
    }
}

/// Ends a program that frees what cannot be an object.
#[inline]
pub(crate) fn expect_aligned(object: *mut u8, class: Class) {
    if object as usize % 8 != 0 {
        fatal::misuse(Misuse::NotAnObject(object, class));
    }
}

/// The last resort before a request for `bytes` bytes fails, which `again` makes once more: everything that is cached
/// here and not in use. At the hard limit other threads are asked for theirs; else addresses may be what is short, and
/// free ones go back, if nothing else has helped, once others have put down what they have in their hands (up to some 200 ms): what is asked
/// for next will want them.
#[cold]
pub(crate) fn reclaim<T>(bytes: usize, again: impl Fn() -> Option<T>) -> Option<T> {
    let by_limit = limits::are_why(bytes);
    fork::adopt_all();
    flush_own();
    flush_shared();
    if by_limit {
        REGISTRY.ask_all();
        return again();
    }
    again().or_else(|| {
        heap().await_others();
        heap().unmap_free();
        guarded::unmap_free();
        again()
    })
}

/// Empties the calling thread's cache, and lets others have what it has claimed.
pub(crate) fn flush_own() {
    if let Some(cache) = thread::existing() {
        // SAFETY: the cache is the thread's own.
        unsafe {
            certain(cache.as_ref().flush_all(&near(cache.as_ref())));
            cache.as_ref().release_unused(&BUDGET);
        }
    }
}

/// Sends what all threads share, and nobody has, to the spans.
pub(crate) fn flush_shared() {
    thread::take_down_parked();
    pools::flush();
    for class in Class::all() {
        certain(CENTRAL.drain(class, usize::MAX));
    }
    CENTRAL.free_kept_spans();
}

/// See [`crate::verify`].
pub(crate) fn verify() {
    pools::verify();
    if let Some(cache) = thread::existing() {
        // SAFETY: the cache is the thread's own.
        certain(unsafe {
            cache.as_ref().verify(|class, object| CENTRAL.is_object(class, object as usize))
        });
    }
    parked::for_each_at_hand(|cache| {
        // SAFETY: nobody else uses it while it waits.
        certain(unsafe { cache.verify(|class, object| CENTRAL.is_object(class, object as usize)) });
    });
}

/// See [`crate::thread_idle`].
pub(crate) fn thread_idle() {
    if let Some(cache) = thread::existing() {
        // SAFETY: the cache is the thread's own.
        certain(unsafe { cache.as_ref().flush_all(&ToSpans) });
        // SAFETY: as above.
        unsafe { cache.as_ref() }.release_unused(&BUDGET);
    }
}

/// The central cache for those who want nothing to stay in its transfer caches.
struct ToSpans;

// SAFETY: the central cache hands each object out once.
unsafe impl ObjectSource for ToSpans {
    fn fetch(&self, class: Class, wanted: usize) -> Chain {
        CENTRAL.fetch(class, wanted)
    }
    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { CENTRAL.store_to_spans(class, chain) }
    }
}

/// See [`crate::trim`].
pub(crate) fn trim(keep: usize) -> usize {
    if let Some(released) = pools::trim(keep) {
        return released;
    }
    fork::adopt_all();
    flush_own();
    flush_shared();
    heap().release_down_to(keep >> PAGE_SHIFT) << PAGE_SHIFT
}
