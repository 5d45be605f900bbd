//! malloc, free, calloc, realloc and what belongs to them; [`crate::exports`] gives them their names.
//!
//! Every function leaves `errno` alone when it succeeds, and sets it to `ENOMEM` (or `EINVAL`, where
//! the standard says so) when it fails.

use core::ffi::c_void;
use core::ptr;

use facade::raw;

/// Sets the calling thread's `errno`.
#[inline]
pub(crate) fn set_errno(value: libc::c_int) {
    // SAFETY: the location is the thread's own.
    unsafe { *libc::__errno_location() = value };
}

/// No memory for a request that cannot even be written down.
#[cold]
pub(crate) fn overflow() -> *mut c_void {
    set_errno(libc::ENOMEM);
    ptr::null_mut()
}

/// `size` bytes at alignment 16; for 0 bytes a pointer of its own.
#[inline(always)]
pub(crate) fn malloc(size: usize) -> *mut c_void {
    raw::malloc(size).cast()
}

/// Frees; null is nothing.
///
/// # Safety
/// `pointer` is null or a live allocation, which is not used any more.
#[inline(always)]
pub(crate) unsafe fn free(pointer: *mut c_void) {
    // SAFETY: passed on to the caller.
    unsafe { raw::free(pointer.cast()) }
}

/// [`free`] of what the caller says has that size, and that alignment: a power of two, or it is taken for
/// the next one.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub(crate) unsafe fn free_claimed(pointer: *mut c_void, size: usize, align: usize) {
    // SAFETY: passed on to the caller.
    unsafe { raw::free_claimed(pointer.cast(), size, align) }
}

/// `count * size` bytes, all zero.
#[inline(always)]
pub(crate) fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => raw::alloc_zeroed(bytes, raw::MIN_ALIGN).cast(),
        None => overflow(),
    }
}

/// Resizes. Null is malloc; size 0 is free and returns null, as in glibc.
///
/// # Safety
/// `pointer` is null or a live allocation, not used any more if the answer is another address.
#[inline(always)]
pub(crate) unsafe fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    if pointer.is_null() {
        return raw::malloc(size).cast();
    }
    // SAFETY: passed on to the caller.
    unsafe {
        if size == 0 {
            raw::free(pointer.cast());
            return ptr::null_mut();
        }
        raw::realloc_roomy(pointer.cast(), size).cast()
    }
}

/// `realloc` to `count * size` bytes.
///
/// # Safety
/// As for [`realloc`].
#[inline(always)]
pub(crate) unsafe fn reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: passed on to the caller.
        Some(bytes) => unsafe { realloc(pointer, bytes) },
        None => overflow(),
    }
}

/// Bytes that may be used, all of them; 0 for null.
///
/// # Safety
/// `pointer` is null or a live allocation.
#[inline(always)]
pub(crate) unsafe fn malloc_usable_size(pointer: *mut c_void) -> usize {
    if pointer.is_null() {
        return 0;
    }
    // SAFETY: passed on to the caller.
    unsafe { raw::usable_size(pointer.cast()) }
}
