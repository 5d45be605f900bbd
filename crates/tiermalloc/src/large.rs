//! Allocations of whole pages: above 256 KiB, or aligned to more than a page.

use core::ptr::NonNull;

use tiermalloc_page_heap::Span;
use tiermalloc_size_class::{PAGE_SHIFT, pages_for};

use crate::state::heap;
use crate::{fatal, slow};

/// From here on an allocation is a mapping of its own, and goes back to the system when freed. Below,
/// the pages stay in the heap for a while: giving 20 MiB back and faulting them in again costs
/// milliseconds.
pub(crate) const HUGE: usize = 64 << 20;
/// From here on a block that grows by `realloc` becomes a mapping of its own, which the system can
/// lengthen and move without copying.
pub(crate) const HUGE_WHEN_GROWING: usize = 1 << 20;

/// A request above this (16 TiB) that fails is not to be helped by what is cached here.
const WORTH_RECLAIMING: usize = 1 << 44;

/// `size` bytes at `align`, or null.
#[inline(never)]
pub(crate) fn alloc(size: usize, align: usize) -> *mut u8 {
    match span(size, align, HUGE) {
        // SAFETY: just allocated.
        Some(span) => unsafe { span.as_ref() }.address() as *mut u8,
        None => slow::no_memory(),
    }
}

/// `size` bytes at `align`, all zero, or null.
#[inline(never)]
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    let Some(span) = span(size, align, HUGE) else {
        return slow::no_memory();
    };
    // SAFETY: just allocated.
    let record = unsafe { span.as_ref() };
    let address = record.address() as *mut u8;
    if !record.was_zeroed() {
        // SAFETY: the span is at least `size` bytes long and ours.
        unsafe { address.write_bytes(0, size) };
    }
    address
}

/// A span for `size` bytes at `align`; from `huge` bytes on a mapping of its own.
pub(crate) fn span(size: usize, align: usize, huge: usize) -> Option<NonNull<Span>> {
    if size > isize::MAX as usize || align > isize::MAX as usize {
        return None;
    }
    once(size, align, huge).or_else(|| {
        if size.saturating_add(align) > WORTH_RECLAIMING {
            return None;
        }
        slow::reclaim();
        once(size, align, huge)
    })
}

fn once(size: usize, align: usize, huge: usize) -> Option<NonNull<Span>> {
    let size = size.max(1);
    if size >= huge || align >= HUGE {
        return heap().alloc_huge(size, align);
    }
    heap().alloc_large(pages_for(size), (align >> PAGE_SHIFT).max(1))
}

/// Frees the allocation of whole pages at `pointer`.
///
/// # Safety
/// If it is one, it is not used any more.
#[inline(never)]
pub(crate) unsafe fn free(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    if unsafe { heap().free_large(pointer as usize) }.is_err() {
        fatal::not_an_allocation("free", pointer as usize);
    }
}
