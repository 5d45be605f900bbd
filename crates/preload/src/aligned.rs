//! posix_memalign, aligned_alloc, memalign, valloc, pvalloc: any power of two, up to gigabytes.

use core::ffi::{c_int, c_void};

use facade::raw;

use crate::c::{overflow, set_errno};

#[inline]
fn page_size() -> usize {
    // SAFETY: getauxval only reads.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    if size.is_power_of_two() { size } else { 4096 }
}

/// Stores an aligned allocation at `*pointer`. `EINVAL` for an alignment that is no power of two or
/// no multiple of a pointer's size, `ENOMEM` without memory; then `*pointer` stays as it is, and
/// `errno` does in any case.
///
/// # Safety
/// `pointer` is writable.
#[inline(always)]
pub(crate) unsafe fn posix_memalign(pointer: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align % size_of::<*mut c_void>() != 0 {
        return libc::EINVAL;
    }
    // SAFETY: errno is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    let block = raw::alloc(size, align.max(raw::MIN_ALIGN));
    if block.is_null() {
        set_errno(errno);
        return libc::ENOMEM;
    }
    // SAFETY: passed on to the caller.
    unsafe { *pointer = block.cast() };
    0
}

/// glibc's semantics: an alignment that is no power of two is rounded up to one.
#[inline]
pub(crate) fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.max(raw::MIN_ALIGN).checked_next_power_of_two() {
        Some(align) => raw::alloc(size, align).cast(),
        None => {
            set_errno(libc::EINVAL);
            core::ptr::null_mut()
        }
    }
}

/// `size` bytes on a page.
#[inline]
pub(crate) fn valloc(size: usize) -> *mut c_void {
    memalign(page_size(), size)
}

/// `size` bytes, rounded up to whole pages, on a page.
#[inline]
pub(crate) fn pvalloc(size: usize) -> *mut c_void {
    let page = page_size();
    match size.checked_next_multiple_of(page) {
        Some(bytes) => memalign(page, bytes.max(page)),
        None => overflow(),
    }
}
