//! glibc's other names: `__libc_malloc` and its like, and what the rest of a static glibc expects of
//! the file that `malloc` comes from. With all of them here, linking never draws in glibc's own.

use core::ffi::{c_int, c_void};

use crate::{aligned, c};

/// `__libc_malloc`: [`c::malloc`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    c::malloc(size)
}

/// `__libc_free`: [`c::free`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(pointer: *mut c_void) {
    // SAFETY: passed on to the caller.
    unsafe { c::free(pointer) }
}

/// `__libc_cfree`: [`c::free`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_cfree(pointer: *mut c_void) {
    // SAFETY: passed on to the caller.
    unsafe { c::free(pointer) }
}

/// `__libc_calloc`: [`c::calloc`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    c::calloc(count, size)
}

/// `__libc_realloc`: [`c::realloc`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { c::realloc(pointer, size) }
}

/// `__libc_reallocarray`: [`c::reallocarray`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_reallocarray(
    pointer: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { c::reallocarray(pointer, count, size) }
}

/// `__libc_memalign`: [`aligned::memalign`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    aligned::memalign(align, size)
}

/// `__libc_valloc`: [`aligned::valloc`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    aligned::valloc(size)
}

/// `__libc_pvalloc`: [`aligned::pvalloc`].
#[unsafe(no_mangle)]
pub extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    aligned::pvalloc(size)
}

/// `__posix_memalign`: [`aligned::posix_memalign`].
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __posix_memalign(
    pointer: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { aligned::posix_memalign(pointer, align, size) }
}

// What a static glibc calls in the file of its own malloc around fork and at a thread's end. Our fork
// handlers and our thread key do both, so there is nothing to do. A shared glibc has these to itself.

/// Before a fork, in a static glibc.
#[unsafe(no_mangle)]
pub extern "C" fn __malloc_fork_lock_parent() {}
/// After a fork, in the parent.
#[unsafe(no_mangle)]
pub extern "C" fn __malloc_fork_unlock_parent() {}
/// After a fork, in the child.
#[unsafe(no_mangle)]
pub extern "C" fn __malloc_fork_unlock_child() {}
/// At a thread's end, in a static glibc.
#[unsafe(no_mangle)]
pub extern "C" fn __malloc_arena_thread_freeres() {}
