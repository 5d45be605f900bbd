//! operator new and delete: all twenty of them.
//!
//! The fast half is malloc's. When that finds nothing, [`slow`] goes on in assembly, because from
//! there the program's new-handler is called and `std::bad_alloc` is thrown, and no Rust frame may be
//! on the stack when an exception passes. A sized or aligned delete does not believe what it is told,
//! so a mismatch never corrupts.

mod runtime;
mod slow;

use core::ffi::c_void;

use facade::raw;

use slow::{tiermalloc_new, tiermalloc_new_nothrow};

#[inline(always)]
fn new(size: usize) -> *mut c_void {
    let object = raw::malloc_cached(size);
    if object.is_null() {
        // SAFETY: the alignment is a power of two.
        return unsafe { tiermalloc_new(size, raw::MIN_ALIGN) };
    }
    object.cast()
}

#[inline(always)]
fn new_nothrow(size: usize) -> *mut c_void {
    let object = raw::malloc_cached(size);
    if object.is_null() {
        // SAFETY: the alignment is a power of two.
        return unsafe { tiermalloc_new_nothrow(size, raw::MIN_ALIGN) };
    }
    object.cast()
}

/// What the language forbids, an alignment that is no power of two, is rounded up to one.
#[inline(always)]
fn sane(align: usize) -> usize {
    if align.is_power_of_two() {
        align.max(raw::MIN_ALIGN)
    } else {
        align.checked_next_power_of_two().unwrap_or(1 << (usize::BITS - 1)).max(raw::MIN_ALIGN)
    }
}

macro_rules! allocating {
    ($($name:ident $name_array:ident ($($arg:ident),*) = $how:expr;)*) => {$(
        /// An operator new.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub extern "C" fn $name($($arg: usize),*) -> *mut c_void {
            $how
        }
        /// An operator new[].
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub extern "C" fn $name_array($($arg: usize),*) -> *mut c_void {
            $how
        }
    )*};
}

allocating! {
    _Znwm _Znam (size) = new(size);
    _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t (size, _nothrow) = new_nothrow(size);
    _ZnwmSt11align_val_t _ZnamSt11align_val_t (size, align) =
        // SAFETY: the alignment is a power of two.
        unsafe { tiermalloc_new(size, sane(align)) };
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t (size, align, _nothrow) =
        // SAFETY: the alignment is a power of two.
        unsafe { tiermalloc_new_nothrow(size, sane(align)) };
}

macro_rules! freeing {
    ($($name:ident $name_array:ident ($($arg:ident),*);)*) => {$(
        /// An operator delete.
        ///
        /// # Safety
        /// The pointer is null or from an operator new, and is not used any more.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $name(pointer: *mut c_void $(, $arg: usize)*) {
            // SAFETY: passed on to the caller.
            unsafe { raw::free(pointer.cast()) }
        }
        /// An operator delete[].
        ///
        /// # Safety
        /// The pointer is null or from an operator new[], and is not used any more.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $name_array(pointer: *mut c_void $(, $arg: usize)*) {
            // SAFETY: passed on to the caller.
            unsafe { raw::free(pointer.cast()) }
        }
    )*};
}

freeing! {
    _ZdlPv _ZdaPv ();
    _ZdlPvm _ZdaPvm (_size);
    _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t (_nothrow);
    _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t (_align);
    _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t (_size, _align);
    _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t (_align, _nothrow);
}
