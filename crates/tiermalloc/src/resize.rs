//! Resizing: in place while the class stays the same or the next pages are free, else by moving.

use core::ptr;

use tiermalloc_page_heap::State;
use tiermalloc_size_class::{Class, MAX_SIZE, PAGE_SIZE, class_of, pages_for};

use crate::pools::{self, Resize};
use crate::raw::{self, MIN_ALIGN};
use crate::state::{MAP, heap};
use crate::{fatal, large, slow, system, thread};

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
        return unsafe { move_to(pointer, class.size(), size, size) };
    }
    // SAFETY: passed on to the caller.
    unsafe { realloc_pages(pointer, size, MIN_ALIGN, "realloc") }
}

/// [`realloc`] for callers whose frees go by the page map and not by a size: a block that grows gets a
/// quarter more than it had, from 8 KiB on half, so that growing by small steps does not copy it each time, and one that
/// shrinks a little stays as it is.
///
/// # Safety
/// As for `raw::realloc`.
#[inline]
pub(crate) unsafe fn realloc_roomy(pointer: *mut u8, size: usize) -> *mut u8 {
    let id = MAP.class_id(pointer as usize);
    // SAFETY: passed on to the caller.
    unsafe {
        let Some(class) = Class::from_id(id) else {
            return realloc_pages(pointer, size, MIN_ALIGN, "realloc");
        };
        if class_of(size, MIN_ALIGN) == Some(class) {
            return pointer;
        }
        move_roomy(pointer, class.size(), size)
    }
}

/// The second half of [`realloc_roomy`]: an object that is to be of another class.
///
/// # Safety
/// As for `raw::realloc`.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe fn move_roomy(pointer: *mut u8, old: usize, size: usize) -> *mut u8 {
    // A free that names the size may be held against the class.
    if pools::checks_sizes() {
        // SAFETY: passed on to the caller.
        return unsafe { move_to(pointer, old, size, size) };
    }
    if size <= old && size + unused(old) > old {
        return pointer;
    }
    // Not past the last class: pages are another matter.
    let roomy = if size > old { size.max((old + more(old)).min(MAX_SIZE)) } else { size };
    // SAFETY: passed on to the caller.
    unsafe { move_to(pointer, old, size, roomy) }
}

/// From here on (8 KiB) copying a block costs more than what it may never use.
const LONG: usize = 8 << 10;

/// Bytes that an object of `old` bytes gets more when it grows: a quarter, or half.
#[inline]
fn more(old: usize) -> usize {
    if old < LONG { old / 4 } else { old / 2 }
}

/// Bytes of an object that may be unused, so that it stays as it is. What has just grown by [`more`], and been rounded up
/// to a class, must not move back at the next small step: of one and a half and an eighth more that is 0.407.
#[inline]
fn unused(old: usize) -> usize {
    (old / 12 * 5).max(16)
}

/// Whether a block of `old` bytes does for `size` bytes without wasting more than a quarter.
#[inline]
fn stays(old: usize, size: usize) -> bool {
    size <= old && size > old - old / 4
}

/// Moves an allocation of `old` bytes to a new one with room for `roomy`, or else for `size`. When a shrinking block finds no smaller one it
/// stays as it is, as C programs expect; not where a free that names the new size would be taken for a
/// mistake.
///
/// # Safety
/// As for `raw::realloc`.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
unsafe fn move_to(pointer: *mut u8, old: usize, size: usize, roomy: usize) -> *mut u8 {
    let mut new = raw::try_alloc(roomy);
    if new.is_null() && roomy > size {
        new = raw::try_alloc(size);
    }
    if new.is_null() {
        if size <= old && size > 0 && !pools::checks_sizes() {
            return pointer;
        }
        return slow::no_memory(size);
    }
    // SAFETY: both are live and apart, and each is as long as its size.
    unsafe {
        ptr::copy_nonoverlapping(pointer, new, old.min(size));
        raw::free(pointer);
    }
    new
}

/// Moves a block of `old` bytes to one of `size`.
///
/// # Safety
/// As for [`realloc_pages`].
#[inline(never)]
unsafe fn move_exactly(pointer: *mut u8, old: usize, size: usize, align: usize) -> *mut u8 {
    let new = raw::alloc(size, align);
    if !new.is_null() {
        // SAFETY: both are live and apart, and each is as long as its size.
        unsafe {
            ptr::copy_nonoverlapping(pointer, new, old.min(size));
            raw::free(pointer);
        }
    }
    new
}

/// Resizes an allocation of whole pages, or of a pool that makes no others.
///
/// # Safety
/// `pointer` is a live allocation of whole pages at alignment `align`, not used any more if the
/// answer is another address.
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) unsafe fn realloc_pages(
    pointer: *mut u8,
    size: usize,
    align: usize,
    call: &str,
) -> *mut u8 {
    let address = pointer as usize;
    match pools::resize(call, pointer, size, align) {
        Resize::Stay => return pointer,
        Resize::Pages => {}
        // SAFETY: passed on to the caller.
        Resize::Move(old) => return unsafe { move_exactly(pointer, old, size, align) },
        // SAFETY: passed on to the caller.
        Resize::System if align <= MIN_ALIGN => return unsafe { system::realloc(pointer, size) },
        Resize::System => {
            // SAFETY: passed on to the caller.
            return unsafe { move_exactly(pointer, system::usable_size(pointer), size, align) };
        }
    }
    // SAFETY: passed on to the caller.
    let Some(span) = (unsafe { heap().large_at(address) }) else {
        fatal::not_an_allocation(call, address);
    };
    let old = span.bytes();
    if size > isize::MAX as usize {
        return slow::no_memory(size);
    }
    // A block that grows is likely to grow again, in steps that may be small: it gets a quarter more.
    let roomy = if size > old { size.max(old.saturating_add(old / 4)) } else { size };
    if class_of(size, align).is_none() {
        if stays(old, size) {
            return pointer;
        }
        for bytes in [roomy, size] {
            // SAFETY: passed on to the caller.
            let placed = unsafe {
                match span.state() {
                    State::Huge if align <= PAGE_SIZE => heap().resize_huge(address, bytes.max(1)),
                    State::Large => {
                        if bytes > old {
                            heap().note_growth(thread::place());
                        }
                        let pages = pages_for(bytes.max(1));
                        heap().resize_large(address, pages).then_some(address)
                    }
                    _ => None,
                }
            };
            if let Some(placed) = placed {
                return placed as *mut u8;
            }
        }
        if size <= old && size > old / 2 {
            return pointer;
        }
    }
    // And the system is to move it from now on.
    let huge = if size > old { large::huge_when_growing() } else { large::HUGE };
    let new = match class_of(size, align) {
        Some(class) => raw::try_alloc_class(class, size, align),
        None => {
            let guards = pools::guards_pages();
            let span = |bytes| large::span(bytes, align, huge, guards);
            match span(roomy).or_else(|| span(size)) {
                // SAFETY: just allocated.
                Some(span) => unsafe { span.as_ref() }.address() as *mut u8,
                None => ptr::null_mut(),
            }
        }
    };
    if new.is_null() {
        // A sized free looks at the size: only where the block stays one of whole pages may it stay.
        let by_c = call == "realloc" && !pools::checks_sizes();
        let stays = size <= old && size > 0 && (by_c || class_of(size, align).is_none());
        if stays {
            return pointer;
        }
        return slow::no_memory(size);
    }
    // SAFETY: both are live and apart, and each is as long as its size.
    unsafe {
        ptr::copy_nonoverlapping(pointer, new, old.min(size));
        pools::free_pages(pointer);
    }
    new
}
