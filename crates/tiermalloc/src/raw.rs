//! The untyped entry points: what C's surface, and any other, is made of.
//!
//! Requests without an alignment get 16 bytes. Pointers from any function here, and from
//! [`TierMalloc`](crate::TierMalloc), may be given to any other. A failed allocation is null, with
//! `errno` set to `ENOMEM`; a successful call leaves `errno` alone.

use tiermalloc_size_class::{Class, MAX_SIZE, SMALL_MAX, class_of, class_of_large};
use tiermalloc_thread_cache::ThreadCache;

use crate::state::MAP;
use crate::{pools, resize, slow, tls};

/// Alignment of allocations that ask for none, in bytes.
pub const MIN_ALIGN: usize = 16;

/// `size` bytes at alignment 16, or null.
///
/// Cost: with a free object in the thread's bin, 14 instructions on x86-64 for up to 1 KiB.
#[inline(always)]
pub fn malloc(size: usize) -> *mut u8 {
    if size > SMALL_MAX {
        return malloc_medium(size);
    }
    // The class id itself. Bin 0, for 0 bytes, is always empty; the slow path knows.
    let id = size.div_ceil(MIN_ALIGN);
    // SAFETY: G1, and `id <= 64`.
    let object = unsafe { ThreadCache::pop(tls::cache(), id) };
    if object.is_null() {
        return slow::alloc(size, id, MIN_ALIGN);
    }
    object
}

/// The fast half of [`malloc`]: null when it takes more than the thread's bin, or more than 1 KiB.
#[inline(always)]
pub fn malloc_cached(size: usize) -> *mut u8 {
    if size > SMALL_MAX {
        return core::ptr::null_mut();
    }
    // SAFETY: G1, and the id is at most 64.
    unsafe { ThreadCache::pop(tls::cache(), size.div_ceil(MIN_ALIGN)) }
}

/// [`malloc`] above 1 KiB.
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn malloc_medium(size: usize) -> *mut u8 {
    if size > MAX_SIZE {
        return pools::alloc_pages(size, MIN_ALIGN);
    }
    let class = class_of_large(size);
    // SAFETY: G1, and class ids are in range.
    let object = unsafe { ThreadCache::pop(tls::cache(), class.id()) };
    if object.is_null() {
        return slow::alloc(size, class.id(), MIN_ALIGN);
    }
    object
}

/// `size` bytes at alignment `align` (a power of two), or null.
#[inline(always)]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    alloc_after(size, align, || ())
}

/// [`alloc`] that calls `before` before it does anything that is not the fast path.
#[inline(always)]
pub(crate) fn alloc_after(size: usize, align: usize, before: impl FnOnce()) -> *mut u8 {
    match class_of(size, align) {
        Some(class) => alloc_class_after(class, size, align, before),
        None => {
            before();
            pools::alloc_pages(size, align)
        }
    }
}

/// [`alloc`] at alignment 16 for who knows another way when there is no memory: null is all that it says.
#[unsafe(link_section = ".text.hot.tiermalloc")]
pub(crate) fn try_alloc(size: usize) -> *mut u8 {
    match class_of(size, MIN_ALIGN) {
        Some(class) => try_alloc_class(class, size, MIN_ALIGN),
        None => pools::try_alloc_pages(size, MIN_ALIGN),
    }
}

/// The same for an object of `class`, which serves `size` bytes at `align`.
pub(crate) fn try_alloc_class(class: Class, size: usize, align: usize) -> *mut u8 {
    // SAFETY: G1, and class ids are in range.
    let object = unsafe { ThreadCache::pop(tls::cache(), class.id()) };
    if object.is_null() { slow::try_alloc(size, class, align) } else { object }
}

/// An object of `class`, which serves `size` bytes at `align`, or null; `before` is called where more than a bin has
/// to be asked.
#[inline(always)]
fn alloc_class_after(class: Class, size: usize, align: usize, before: impl FnOnce()) -> *mut u8 {
    // SAFETY: G1, and class ids are in range.
    let object = unsafe { ThreadCache::pop(tls::cache(), class.id()) };
    if object.is_null() {
        before();
        return slow::alloc(size, class.id(), align);
    }
    object
}

/// `size` bytes at alignment `align` (a power of two), all zero, or null. Memory that is known to be
/// zero is not cleared again.
#[inline]
pub fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    alloc_zeroed_after(size, align, || ())
}

/// [`alloc_zeroed`] that calls `before` before it does anything that is not the fast path.
#[inline(always)]
pub(crate) fn alloc_zeroed_after(size: usize, align: usize, before: impl FnOnce()) -> *mut u8 {
    match class_of(size, align) {
        Some(class) => {
            // SAFETY: G1, and class ids are in range.
            let object = unsafe { ThreadCache::pop(tls::cache(), class.id()) };
            if object.is_null() {
                before();
                return slow::alloc_zeroed(class, size, align);
            }
            // SAFETY: objects of the class are at least `size` bytes long.
            unsafe { object.write_bytes(0, size) };
            object
        }
        None => {
            before();
            pools::alloc_pages_zeroed(size, align)
        }
    }
}

/// Frees what any function here returned; null is nothing.
///
/// Cost: with room in the thread's bin and an address in the heap's first 2 GiB, 16 instructions on
/// x86-64.
///
/// # Safety
/// `pointer` is null or a live allocation, which is not used any more.
#[inline(always)]
pub unsafe fn free(pointer: *mut u8) {
    // SAFETY: passed on to the caller. Null and what is not ours have class 0 at all times.
    if let Some(id) = unsafe { MAP.home_class_id(pointer as usize) } {
        // Class 0, for what serves no class, is a bin that is always full.
        // SAFETY: G1; the map holds ids in range only; the caller gives the object up.
        if unsafe { ThreadCache::push(tls::cache(), id, pointer) } {
            return;
        }
    }
    // SAFETY: passed on to the caller.
    unsafe { slow::free(pointer) }
}

/// As [`free`], from a caller who says what size and alignment it was. The page map is believed and not
/// the caller; the hardened pool ends a program whose caller is wrong. An alignment below [`MIN_ALIGN`]
/// means that.
///
/// Cost: that of [`free`] to the instruction.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub unsafe fn free_claimed(pointer: *mut u8, size: usize, align: usize) {
    // SAFETY: as in `free`.
    unsafe {
        if let Some(id) = MAP.home_class_id(pointer as usize) {
            if ThreadCache::push(tls::cache(), id, pointer) {
                return;
            }
        }
        slow::free_claimed(pointer, size, align);
    }
}

/// Frees what was allocated with this very size and alignment.
///
/// # Safety
/// `pointer` is a live allocation of `size` bytes at `align`, which is not used any more.
#[inline(always)]
pub unsafe fn free_sized(pointer: *mut u8, size: usize, align: usize) {
    match class_of(size, align) {
        Some(class) => {
            // SAFETY: G1 and G2; the caller gives the object up.
            unsafe {
                if !ThreadCache::push(tls::cache(), class.id(), pointer) {
                    slow::free_class(class.id(), pointer);
                }
            }
        }
        // SAFETY: passed on to the caller.
        None => unsafe { pools::free_pages_sized(pointer) },
    }
}

/// Resizes an allocation of [`malloc`]'s kind, perhaps moving it; the contents are kept up to the
/// smaller size. Null: there is no memory, and nothing has changed. Neither null nor size 0 is
/// special here.
///
/// # Safety
/// `pointer` is a live allocation, not used any more if the answer is another address.
#[inline]
pub unsafe fn realloc(pointer: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { resize::realloc(pointer, size) }
}

/// [`realloc`] that may leave more room than `size` bytes take, for blocks that grow again and again. Only
/// for callers who never free what it returns by [`free_sized`], or through
/// [`TierMalloc`](crate::TierMalloc), which believe a size.
///
/// # Safety
/// As for [`realloc`].
#[inline]
pub unsafe fn realloc_roomy(pointer: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { resize::realloc_roomy(pointer, size) }
}

/// Bytes of the allocation that may be used: at least what was asked for.
///
/// # Safety
/// `pointer` is a live allocation.
#[inline]
pub unsafe fn usable_size(pointer: *mut u8) -> usize {
    match Class::from_id(MAP.class_id(pointer as usize)) {
        Some(class) => class.size(),
        // SAFETY: passed on to the caller.
        None => unsafe { pools::usable_size(pointer) },
    }
}

/// The address of a function of the C library that serves in the pool `system`, for what else it has beside
/// allocations, such as `mallinfo2`. `None`: this library serves, or that one has no such function.
///
/// Cost: a look into a hash table.
pub fn system_function(name: &[u8]) -> Option<usize> {
    pools::system_function(name)
}

/// Whether a live block starts at `pointer`, as far as is known without its thread: an object that waits in a cache counts as one.
/// Exact for a block that the caller has, but in the pool `system`, whose blocks are not known here.
///
/// Cost: a few loads; in the pool `guarded` a lock.
#[must_use]
pub fn is_live(pointer: *mut u8) -> bool {
    pools::is_live(pointer)
}

/// Makes other functions stand for those of these names in the C library's own table of symbols, so that also those who
/// ask that library before all others get them from now on. In the pool `system`, where the C library's serve, and where
/// there is no glibc of its own file, nothing happens. Returns how many names that were.
///
/// Cost: two system calls, and a page that becomes the process's own for each page of the table that changes.
///
/// # Safety
/// Each address is that of a function that does what the name promises, and goes on to; whoever mixes these functions with
/// what the names have stood for until now has done so knowingly. No other thread calls this at the same time.
pub unsafe fn rename_in_c_library(functions: &[(&[u8], usize)]) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { pools::rename_in_c_library(functions) }
}
