//! Resizing: in place while the class stays the same or the next pages are free, else by moving.

use core::ptr;

use tiermalloc_page_heap::State;
use tiermalloc_size_class::{Class, PAGE_SIZE, class_of, pages_for};

use crate::raw::{self, MIN_ALIGN};
use crate::state::{MAP, heap};
use crate::{fatal, hardened, large, slow};

/// C's `realloc`, for a live pointer and any size.
///
/// # Safety
/// As for `raw::realloc`.
#[inline]
pub(crate) unsafe fn realloc(pointer: *mut u8, size: usize) -> *mut u8 {
    let id = MAP.class_id(pointer as usize);
    if let Some(class) = Class::from_id(id) {
        // G2: in place only within the class, because a sized free will look there.
        if class_of(size, MIN_ALIGN) == Some(class) {
            return pointer;
        }
        // SAFETY: passed on to the caller.
        return unsafe { move_to(pointer, class.size(), size) };
    }
    // SAFETY: passed on to the caller.
    unsafe { realloc_pages(pointer, size, MIN_ALIGN, "realloc") }
}

/// Moves an allocation of `old` bytes to a new one. When a shrinking block finds no smaller one it
/// stays as it is, as C programs expect; not in the hardened pool, where a free that names the new size
/// would be taken for a mistake.
///
/// # Safety
/// As for `raw::realloc`.
#[inline(never)]
unsafe fn move_to(pointer: *mut u8, old: usize, size: usize) -> *mut u8 {
    let errno = slow::errno();
    let new = raw::alloc(size, MIN_ALIGN);
    if new.is_null() {
        if size <= old && size > 0 && !hardened::is_chosen() {
            slow::set_errno(errno);
            return pointer;
        }
        return new;
    }
    // SAFETY: both are live and apart, and each is as long as its size.
    unsafe {
        ptr::copy_nonoverlapping(pointer, new, old.min(size));
        raw::free(pointer);
    }
    new
}

/// Resizes an allocation of whole pages.
///
/// # Safety
/// `pointer` is a live allocation of whole pages at alignment `align`, not used any more if the
/// answer is another address.
#[inline(never)]
pub(crate) unsafe fn realloc_pages(
    pointer: *mut u8,
    size: usize,
    align: usize,
    call: &str,
) -> *mut u8 {
    let address = pointer as usize;
    let Some(span) = heap().large_at(address) else {
        fatal::not_an_allocation(call, address);
    };
    let old = span.bytes();
    if size > isize::MAX as usize {
        return slow::no_memory();
    }
    if class_of(size, align).is_none() {
        let pages = pages_for(size.max(1));
        // SAFETY: passed on to the caller.
        let placed = unsafe {
            match span.state() {
                State::Huge if align <= PAGE_SIZE => heap().resize_huge(address, size.max(1)),
                State::Large => heap().resize_large(address, pages).then_some(address),
                _ => None,
            }
        };
        if let Some(placed) = placed {
            return placed as *mut u8;
        }
        if size <= old && size > old / 2 {
            return pointer;
        }
    }
    let errno = slow::errno();
    // A block that grows is likely to grow again: let the system move it from now on.
    let huge = if size > old { large::huge_when_growing() } else { large::HUGE };
    let new = match class_of(size, align) {
        Some(class) => raw::alloc_class(class),
        None => match large::span(size, align, huge) {
            // SAFETY: just allocated.
            Some(span) => unsafe { span.as_ref() }.address() as *mut u8,
            None => slow::no_memory(),
        },
    };
    if new.is_null() {
        // A sized free looks at the size: only where the block stays one of whole pages may it stay.
        let by_c = call == "realloc" && !hardened::is_chosen();
        let stays = size <= old && size > 0 && (by_c || class_of(size, align).is_none());
        if stays {
            slow::set_errno(errno);
            return pointer;
        }
        return new;
    }
    // SAFETY: both are live and apart, and each is as long as its size.
    unsafe {
        ptr::copy_nonoverlapping(pointer, new, old.min(size));
        large::free(pointer);
    }
    new
}
