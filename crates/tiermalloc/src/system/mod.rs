//! The system pool: everything goes to the C library's own allocator, as if this one were not there.
//!
//! A preloaded library exports `malloc`, `__libc_malloc` and the rest itself, so that asking the loader for these
//! names finds the library. The C library's own are found in its symbol table, without the loader's help and before
//! anything is allocated (`symbols`). In a program without another C library's allocator, as a static one, there
//! is nothing to be found, and the pool cannot serve.
//!
//! # Invariant
//! - Y1: [`FUNCTIONS`] and [`LIBRARY`] are written once, before the pool is chosen, and complete.

mod loaded;
mod symbols;

use core::cell::UnsafeCell;

use self::symbols::Library;
use crate::raw::MIN_ALIGN;

type Malloc = unsafe extern "C" fn(usize) -> *mut u8;
type Calloc = unsafe extern "C" fn(usize, usize) -> *mut u8;
type Realloc = unsafe extern "C" fn(*mut u8, usize) -> *mut u8;
type Memalign = unsafe extern "C" fn(usize, usize) -> *mut u8;
type Free = unsafe extern "C" fn(*mut u8);
type UsableSize = unsafe extern "C" fn(*mut u8) -> usize;
type Trim = unsafe extern "C" fn(usize) -> libc::c_int;

/// The other allocator.
#[derive(Clone, Copy)]
struct Functions {
    malloc: Malloc,
    calloc: Calloc,
    realloc: Realloc,
    memalign: Memalign,
    free: Free,
    usable_size: UsableSize,
    trim: Trim,
}

struct Found(UnsafeCell<Functions>);

// SAFETY: Y1.
unsafe impl Sync for Found {}

static FUNCTIONS: Found = Found(UnsafeCell::new(Functions {
    malloc: nothing::malloc,
    calloc: nothing::calloc,
    realloc: nothing::realloc,
    memalign: nothing::calloc,
    free: nothing::free,
    usable_size: nothing::usable_size,
    trim: nothing::trim,
}));

struct Kept(UnsafeCell<Option<Library>>);

// SAFETY: Y1.
unsafe impl Sync for Kept {}

/// Where the functions were found, for those that are asked for later.
static LIBRARY: Kept = Kept(UnsafeCell::new(None));

/// What stands in the table before there is anything.
mod nothing {
    pub(super) unsafe extern "C" fn malloc(_: usize) -> *mut u8 {
        core::ptr::null_mut()
    }
    pub(super) unsafe extern "C" fn calloc(_: usize, _: usize) -> *mut u8 {
        core::ptr::null_mut()
    }
    pub(super) unsafe extern "C" fn realloc(_: *mut u8, _: usize) -> *mut u8 {
        core::ptr::null_mut()
    }
    pub(super) unsafe extern "C" fn free(_: *mut u8) {}
    pub(super) unsafe extern "C" fn usable_size(_: *mut u8) -> usize {
        0
    }
    pub(super) unsafe extern "C" fn trim(_: usize) -> libc::c_int {
        0
    }
}

#[inline(always)]
fn functions() -> &'static Functions {
    // SAFETY: Y1.
    unsafe { &*FUNCTIONS.0.get() }
}

/// Finds the other allocator; `false`: there is none here.
///
/// # Safety
/// Called before the pool is chosen, by one thread.
pub(crate) unsafe fn prepare() -> bool {
    let Some(library) = loaded::c_library() else { return false };
    let find = |name: &[u8]| library.function(name);
    let (Some(malloc), Some(calloc), Some(realloc), Some(memalign), Some(free)) =
        (find(b"malloc"), find(b"calloc"), find(b"realloc"), find(b"memalign"), find(b"free"))
    else {
        return false;
    };
    let (Some(usable_size), Some(trim)) = (find(b"malloc_usable_size"), find(b"malloc_trim"))
    else {
        return false;
    };
    // SAFETY: functions of these names have these types in every C library; nobody reads the table yet.
    unsafe {
        *FUNCTIONS.0.get() = Functions {
            malloc: core::mem::transmute::<usize, Malloc>(malloc),
            calloc: core::mem::transmute::<usize, Calloc>(calloc),
            realloc: core::mem::transmute::<usize, Realloc>(realloc),
            memalign: core::mem::transmute::<usize, Memalign>(memalign),
            free: core::mem::transmute::<usize, Free>(free),
            usable_size: core::mem::transmute::<usize, UsableSize>(usable_size),
            trim: core::mem::transmute::<usize, Trim>(trim),
        };
        *LIBRARY.0.get() = Some(library);
    }
    true
}

/// `size` bytes at `align`, or null with `errno` set.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: C's functions take any size, and a power of two.
    unsafe {
        if align <= MIN_ALIGN {
            (functions().malloc)(size)
        } else {
            (functions().memalign)(align, size)
        }
    }
}

/// `size` bytes at `align`, all zero, or null with `errno` set.
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as above; what was allocated is `size` bytes long.
    unsafe {
        if align <= MIN_ALIGN {
            return (functions().calloc)(1, size);
        }
        let block = (functions().memalign)(align, size);
        if !block.is_null() {
            block.write_bytes(0, size);
        }
        block
    }
}

/// # Safety
/// `pointer` is a live allocation, which is not used any more.
#[inline]
pub(crate) unsafe fn free(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe { (functions().free)(pointer) }
}

/// Resizes; for alignments that every allocation has.
///
/// # Safety
/// `pointer` is a live allocation, not used any more if the answer is another address.
pub(crate) unsafe fn realloc(pointer: *mut u8, size: usize) -> *mut u8 {
    if size == 0 {
        // C's would free and return nothing.
        let block = alloc(0, MIN_ALIGN);
        if !block.is_null() {
            // SAFETY: passed on to the caller.
            unsafe { free(pointer) };
        }
        return block;
    }
    // SAFETY: passed on to the caller.
    unsafe { (functions().realloc)(pointer, size) }
}

/// # Safety
/// `pointer` is a live allocation.
pub(crate) unsafe fn usable_size(pointer: *mut u8) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { (functions().usable_size)(pointer) }
}

/// 1 if anything went back, which is all that is known.
pub(crate) fn trim(keep: usize) -> usize {
    // SAFETY: takes any number.
    usize::from(unsafe { (functions().trim)(keep) } > 0)
}

/// The address of any other function of that library. The tables that are read are its own, so what the
/// loader does meanwhile does not matter.
pub(crate) fn function(name: &[u8]) -> Option<usize> {
    // SAFETY: Y1.
    unsafe { *LIBRARY.0.get() }?.function(name)
}

/// Makes other functions stand for those of these names in the C library, for everybody who asks for them there from
/// now on. Returns how many.
///
/// # Safety
/// Whoever calls the names may as well call these functions, at any time; no other thread does this.
pub(crate) unsafe fn rename(functions: &[(&[u8], usize)]) -> usize {
    // SAFETY: passed on to the caller.
    loaded::c_library().map_or(0, |library| unsafe { library.rename(functions) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_found_with_all_that_it_takes() {
        let library = loaded::c_library().expect("tests are dynamic programs of glibc");
        assert_eq!(library.function(b"malloc"), Some(libc::malloc as *const () as usize));
        assert_eq!(library.function(b"free"), Some(libc::free as *const () as usize));
        assert_eq!(library.function(b"no_such_function_anywhere"), None);
        assert_eq!(library.function(b""), None);
        // Data is no function, and neither is what a resolver has to choose first.
        assert_eq!(library.function(b"stdout"), None);
        assert_eq!(library.function(b"memcpy"), None);
    }

    #[test]
    fn a_renamed_function_is_what_everybody_finds() {
        extern "C" fn other() -> i32 {
            7
        }
        let found = |name: &std::ffi::CStr| {
            // SAFETY: handles of a library that stays, and names that end.
            unsafe {
                let library = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW);
                libc::dlsym(library, name.as_ptr()) as usize
            }
        };
        let (before, neighbour) = (found(c"l64a"), found(c"a64l"));
        let ours = other as *const () as usize;
        let names: [(&[u8], usize); 2] = [(b"l64a", ours), (b"no_such_function_anywhere", ours)];
        // SAFETY: nobody here calls it, and nobody else does this.
        unsafe {
            assert_eq!(rename(&names), 1);
            assert_ne!(before, ours);
            assert_eq!((found(c"l64a"), found(c"a64l")), (ours, neighbour));
            // It stands for something that is not the library's, so it stays so.
            assert_eq!(rename(&names), 0);
            assert_eq!(rename(&[]), 0);
        }
    }

    #[test]
    fn what_is_found_allocates() {
        // SAFETY: nobody else writes the table in this process, whose pool is another one.
        assert!(unsafe { prepare() });
        assert_eq!(function(b"mallopt"), Some(libc::mallopt as *const () as usize));
        assert_eq!(function(b"no_such_function_anywhere"), None);
        for (size, align) in
            [(0, 1), (1, 1), (100, 16), (100, 64), (5000, 4096), (1 << 20, 1 << 16)]
        {
            // SAFETY: blocks are used between their allocation and their end.
            unsafe {
                let block = alloc_zeroed(size, align);
                assert!(!block.is_null() && block as usize % align == 0);
                assert!(usable_size(block) >= size);
                assert!((0..size).all(|at| *block.add(at) == 0));
                let block = realloc(block, size + 1000);
                free(realloc(block, 0));
                free(core::ptr::null_mut());
            }
        }
    }
}
