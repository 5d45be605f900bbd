//! Allocations of whole pages: above 256 KiB, or aligned to more than a page.

use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{PageSource, Span, State};
use tiermalloc_size_class::{Class, PAGE_SHIFT, PAGE_SIZE, pages_for};
use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

use crate::state::{CENTRAL, MAP, heap};
use crate::{fatal, hardened, slow, thread};

/// From here on an allocation is a mapping of its own, and goes back to the system when freed. Below,
/// the pages stay in the heap for a while: giving 20 MiB back and faulting them in again costs
/// milliseconds.
pub(crate) const HUGE: usize = 64 << 20;
/// A block that grows by `realloc` to this becomes a mapping of its own, which the system can lengthen
/// and move without copying. When such a mapping is freed, the next ones have to be longer: a program
/// that makes and frees such blocks again and again is better served with pages that are there.
static HUGE_WHEN_GROWING: AtomicUsize = AtomicUsize::new(1 << 20);
/// From here on (16 MiB) `calloc` gives the pages of a used span back for zeroed ones, because who asks
/// for that much seldom touches all of it.
const SPARSE: usize = 16 << 20;

/// `size` bytes at `align`, or null. `guards`: between pages that nobody can touch.
#[inline(always)]
pub(crate) fn alloc(size: usize, align: usize, guards: bool) -> *mut u8 {
    match span(size, align, HUGE, guards) {
        // SAFETY: just allocated.
        Some(span) => unsafe { span.as_ref() }.address() as *mut u8,
        None => slow::no_memory(size),
    }
}

/// A block that has waited for such a request, if there is one.
#[inline(always)]
pub(crate) fn waiting(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align > PAGE_SIZE {
        return None;
    }
    let span = heap().alloc_waiting(thread::place(), size.div_ceil(PAGE_SIZE))?;
    // SAFETY: just allocated.
    NonNull::new(unsafe { span.as_ref() }.address() as *mut u8)
}

/// [`alloc`], or null and nothing else.
pub(crate) fn try_alloc(size: usize, align: usize, guards: bool) -> *mut u8 {
    // SAFETY: just allocated.
    span(size, align, HUGE, guards)
        .map_or(ptr::null_mut(), |span| unsafe { span.as_ref() }.address() as *mut u8)
}

/// `size` bytes at `align`, all zero, or null.
#[inline(always)]
pub(crate) fn alloc_zeroed(size: usize, align: usize, guards: bool) -> *mut u8 {
    let Some(span) = span(size, align, HUGE, guards) else {
        return slow::no_memory(size);
    };
    // SAFETY: just allocated.
    let record = unsafe { span.as_ref() };
    let address = record.address() as *mut u8;
    if !record.was_zeroed() {
        // SAFETY: the span is at least `size` bytes long and ours.
        unsafe {
            if size < SPARSE || !zero_pages(address, record.bytes()) {
                address.write_bytes(0, size);
            }
        }
    }
    address
}

/// Makes whole pages zero by giving them back; `false` where they are not whole pages of the system.
///
/// # Safety
/// The pages are the caller's.
unsafe fn zero_pages(address: *mut u8, bytes: usize) -> bool {
    let source = heap().source();
    let Some(start) = NonNull::new(address) else { return false };
    // SAFETY: passed on to the caller.
    (address as usize | bytes) % source.os_page_size() == 0
        && unsafe { source.decommit(start, bytes) }
}

/// From how many bytes on a growing block becomes a mapping of its own.
pub(crate) fn huge_when_growing() -> usize {
    HUGE_WHEN_GROWING.load(Ordering::Relaxed)
}

/// A span for `size` bytes at `align`; from `huge` bytes on a mapping of its own. `guards`: between pages that
/// nobody can touch.
pub(crate) fn span(size: usize, align: usize, huge: usize, guards: bool) -> Option<NonNull<Span>> {
    if size > isize::MAX as usize || align > isize::MAX as usize {
        return None;
    }
    once(size, align, huge, guards).or_else(|| {
        if !worth_reclaiming(size, align) {
            return None;
        }
        slow::reclaim(size, || once(size, align, huge, guards))
    })
}

/// Whether emptying the caches may help a request that has failed: not if what would be missing even
/// with all of the heap given back is more than the system has.
#[cold]
fn worth_reclaiming(size: usize, align: usize) -> bool {
    if !heap().may_ever_have(size) {
        return false;
    }
    let stats = heap().stats();
    let ours = (stats.reserved_pages + stats.huge_pages + heap().in_hand_pages()) << PAGE_SHIFT;
    let wanted = size.saturating_add(if align > PAGE_SIZE { align } else { 0 });
    let Some(missing) = wanted.checked_sub(ours).filter(|&missing| missing > 0) else {
        return true;
    };
    let probe =
        missing.checked_next_multiple_of(PAGE_SIZE).and_then(|m| heap().source().reserve(m));
    // SAFETY: reserved here and seen by nobody.
    probe.is_some_and(|start| unsafe {
        heap().source().release(start, missing.next_multiple_of(PAGE_SIZE));
        true
    })
}

#[unsafe(link_section = ".text.warm.tiermalloc")]
fn once(size: usize, align: usize, huge: usize, guards: bool) -> Option<NonNull<Span>> {
    let size = size.max(1);
    if guards {
        if let Some(span) = hardened::alloc_pages(size, align) {
            return Some(span);
        }
    }
    if size >= huge || align >= HUGE {
        return heap().alloc_huge(size, align);
    }
    let (pages, align_pages) = (pages_for(size), (align >> PAGE_SHIFT).max(1));
    if align_pages == 1 {
        let place = thread::place();
        let waiting = heap().alloc_waiting(place, pages);
        let span = waiting.or_else(|| heap().alloc_waiting_elsewhere(place, pages));
        if span.is_some() {
            return span;
        }
    }
    slow::certain(CENTRAL.make_way_for_pages());
    heap().alloc_large(pages, align_pages)
}

/// Frees the allocation of whole pages at `pointer`, which the next one of its length may have as it is. `false`: it
/// is for [`free`] to do.
///
/// # Safety
/// If it is one, it is not used any more.
#[inline(always)]
pub(crate) unsafe fn free_to_wait(pointer: *mut u8) -> bool {
    // SAFETY: passed on to the caller.
    unsafe { heap().free_to_wait(thread::place(), pointer as usize) }
}

/// Frees the allocation of whole pages at `pointer`.
///
/// # Safety
/// If it is one, it is not used any more.
#[inline]
pub(crate) unsafe fn free(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    if let Some(span) = unsafe { heap().large_at(pointer as usize) } {
        if span.state() == State::Huge && span.bytes() < HUGE {
            HUGE_WHEN_GROWING.fetch_max(span.bytes() + 1, Ordering::Relaxed);
        }
    }
    // SAFETY: passed on to the caller.
    if unsafe { heap().free_large(pointer as usize) }.is_err() {
        // What C frees does not come here if it has a class; what is freed with a size may.
        if let Some(class) = Class::from_id(MAP.class_id(pointer as usize)) {
            fatal::wrong_size(pointer, None, Some(class));
        }
        fatal::not_an_allocation("free", pointer as usize);
    }
}
