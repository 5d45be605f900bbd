//! The names under which programs find the C surface: one table.
//!
//! Nothing in the library calls another function by one of these names, nor takes its address. Either would go through
//! the loader's search, and where the library was loaded with `RTLD_LOCAL` it would find glibc's. What glibc is told to call
//! ([`names`]) are copies under no exported name.

use core::ffi::{c_char, c_int, c_void};

use facade::raw::MIN_ALIGN;

use crate::{aligned, c, figures, info};

/// The names that glibc has as well, and functions that do the same as those here. Not those themselves: whoever asks
/// for an exported function's address is told which one the program has got by that name, or by another name of the same
/// code, which the compiler has merged: `free`, `cfree` and C++'s `operator delete` are one.
#[cfg(all(feature = "dlopen", target_os = "linux", target_env = "gnu"))]
pub(crate) fn names() -> [(&'static [u8], usize); NAMES] {
    use self::{cold::*, hot::*};
    macro_rules! named {
        ($($name:ident)+) => {
            [$((stringify!($name).as_bytes(), $name as *const () as usize)),+]
        };
    }
    named! {
        malloc __libc_malloc free __libc_free calloc __libc_calloc realloc __libc_realloc reallocarray
        __libc_reallocarray posix_memalign __posix_memalign memalign __libc_memalign aligned_alloc
        valloc __libc_valloc pvalloc __libc_pvalloc free_sized free_aligned_sized malloc_usable_size
        mallinfo mallinfo2 malloc_stats malloc_info malloc_trim mallopt
    }
}
#[cfg(all(feature = "dlopen", target_os = "linux", target_env = "gnu"))]
const NAMES: usize = 28;

/// Exports `name(arguments) -> result` for each name of a row, each doing what the row's expression
/// says, from that section of the library.
macro_rules! export {
    (in $section:literal $(as $own:ident)?; $(
        $($name:ident)+ ($($arg:ident: $type:ty),*) $(-> $result:ty)? = $what:expr;
    )*) => {
        $(export!(@each $section [$($name)+] ($($arg: $type),*) ($($result)?) $what);)*
        export!(@own [$($own)?] $([$($name)+] ($($arg: $type),*) ($($result)?) $what;)*);
    };
    (@own [] $($rest:tt)*) => {};
    (@own [$own:ident] $([$($name:ident)+] $args:tt $result:tt $what:expr;)*) => {
        /// The same functions under no exported name, in the order of the table; each with a word in it that keeps the compiler
        /// from merging it with another.
        #[cfg(all(feature = "dlopen", target_os = "linux", target_env = "gnu"))]
        #[allow(dead_code)]
        mod $own {
            use super::*;
            $(export!(@owns [$($name)+] $args $result $what);)*
        }
    };
    (@owns [$($name:ident)+] $args:tt $result:tt $what:expr) => {$(
        export!(@owned $name $args $result $what);
    )+};
    (@owned $name:ident ($($arg:ident: $type:ty),*) ($($result:ty)?) $what:expr) => {
        /// See the exported one.
        ///
        /// # Safety
        /// As there.
        pub(super) unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: nothing but a comment; the rest is passed on to the caller.
            #[allow(unused_unsafe)]
            unsafe {
                core::arch::asm!(concat!("/* ", stringify!($name), " */"), options(nomem, nostack, preserves_flags));
                $what
            }
        }
    };
    (@each $section:literal [$($name:ident)+] $args:tt $result:tt $what:expr) => {$(
        export!(@one $section $name $args $result $what);
    )+};
    (@one $section:literal
        $name:ident ($($arg:ident: $type:ty),*) ($($result:ty)?) $what:expr) => {
        /// See the C library's documentation of this name.
        ///
        /// # Safety
        /// As C asks: pointers are null or live allocations, streams are open, results writable.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            #[allow(unused_unsafe)]
            // SAFETY: passed on to the caller.
            unsafe {
                $what
            }
        }
    };
}

type Pointer = *mut c_void;

// What programs run all the time lies together with the rest of that (docs/architecture.md, Code).
export! {
    in ".text.hot.tiermalloc" as hot;
    malloc __libc_malloc (size: usize) -> Pointer = c::malloc(size);
    free cfree __libc_free __libc_cfree (pointer: Pointer) = c::free(pointer);
    // C23. Neither size nor alignment is believed, so that a wrong one never corrupts; the hardened
    // pool looks at them.
    free_sized (pointer: Pointer, size: usize) = c::free_claimed(pointer, size, MIN_ALIGN);
    free_aligned_sized (pointer: Pointer, align: usize, size: usize) =
        c::free_claimed(pointer, size, align);
    calloc __libc_calloc (count: usize, size: usize) -> Pointer = c::calloc(count, size);
    realloc __libc_realloc (pointer: Pointer, size: usize) -> Pointer = c::realloc(pointer, size);
    reallocarray __libc_reallocarray (pointer: Pointer, count: usize, size: usize) -> Pointer =
        c::reallocarray(pointer, count, size);

    posix_memalign __posix_memalign (pointer: *mut Pointer, align: usize, size: usize) -> c_int =
        aligned::posix_memalign(pointer, align, size);
    // C11's size need not be a multiple of the alignment.
    memalign __libc_memalign aligned_alloc (align: usize, size: usize) -> Pointer =
        aligned::memalign(align, size);
    valloc __libc_valloc (size: usize) -> Pointer = aligned::valloc(size);
    pvalloc __libc_pvalloc (size: usize) -> Pointer = aligned::pvalloc(size);
}

export! {
    in ".text.tiermalloc" as cold;
    malloc_usable_size (pointer: Pointer) -> usize = c::malloc_usable_size(pointer);
    mallinfo () -> info::Mallinfo = info::mallinfo();
    mallinfo2 () -> info::Mallinfo2 = info::mallinfo2();
    malloc_stats () = info::malloc_stats();
    malloc_info (options: c_int, stream: *mut libc::FILE) -> c_int =
        info::malloc_info(options, stream);
    malloc_trim (keep: usize) -> c_int = info::malloc_trim(keep);
    mallopt (parameter: c_int, value: c_int) -> c_int = info::mallopt(parameter, value);

    // include/tiermalloc.h
    tiermalloc_version () -> *const c_char = figures::version();
    tiermalloc_stats (out: *mut u64, size: usize) -> c_int = figures::stats(out, size);
    tiermalloc_each_class (each: Option<figures::Each>, data: Pointer) -> c_int =
        figures::each_class(each, data);
    tiermalloc_stats_write (fd: c_int, format: c_int) -> c_int = figures::stats_write(fd, format);
    tiermalloc_config_get (key: *const c_char, value: *mut c_char, size: usize) -> c_int =
        figures::config_get(key, value, size);

    // What the rest of a static glibc calls in the file that malloc comes from, around a fork and at
    // a thread's end. With these here, linking never draws in glibc's own malloc. Our fork handlers
    // and our thread key do both, so there is nothing to do; a shared glibc has its own.
    __malloc_fork_lock_parent () = {};
    __malloc_fork_unlock_parent () = {};
    __malloc_fork_unlock_child () = {};
    __malloc_arena_thread_freeres () = {};
}
