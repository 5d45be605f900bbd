//! operator new and delete: all twenty of them.
//!
//! The fast half is malloc's. When that finds nothing, [`slow`] goes on in assembly, because from
//! there the program's new-handler is called and `std::bad_alloc` is thrown, and no Rust frame may be
//! on the stack when an exception passes. A sized or aligned delete does not believe what it is told,
//! so a mismatch never corrupts; the hardened pool looks at it.
//!
//! A program may replace some of the operators and not others. The language says which of the others
//! then call the replaced ones (C++20, [new.delete]): an array form its plain form, a nothrow form its
//! throwing form, a sized delete the unsized one. So these forms go to whatever the loader has found
//! under the other name, which is this library's own unless the program has one: a load and a jump.
//! The sized deletes ask beforehand whether all are the library's own, which costs no more than that,
//! and keep the size.

mod runtime;
mod slow;

use core::arch::asm;
use core::ffi::c_void;

use core::sync::atomic::{AtomicBool, Ordering};
use facade::raw;

use crate::c;

use slow::{tiermalloc_new, tiermalloc_new_nothrow, tiermalloc_new_nothrow_by};

type Pointer = *mut c_void;
type New = unsafe extern "C" fn(usize) -> Pointer;
type NewAligned = unsafe extern "C" fn(usize, usize) -> Pointer;
type Delete = unsafe extern "C" fn(Pointer);
type DeleteAligned = unsafe extern "C" fn(Pointer, usize);

/// What the loader has found under a name that this library exports too.
macro_rules! found {
    ($name:literal as $type:ty) => {{
        let address: usize;
        // SAFETY: reads an entry of the table that the loader has filled.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                concat!("mov {0}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                out(reg) address,
                options(nomem, nostack, preserves_flags, pure)
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                concat!("adrp {0}, :got:", $name),
                concat!("ldr {0}, [{0}, #:got_lo12:", $name, "]"),
                out(reg) address,
                options(nomem, nostack, preserves_flags, pure)
            );
        }
        // SAFETY: a function of that name has that type in every C++ program.
        unsafe { core::mem::transmute::<usize, $type>(address) }
    }};
}

unsafe extern "C" {
    /// The first byte of this library, or of the program that it is linked into, from the linker.
    static __ehdr_start: u8;
    /// The byte behind its last.
    static _end: u8;
}

core::arch::global_asm!(".hidden __ehdr_start", ".hidden _end");

/// Whether a function found by name is this library's own. In a program that the library is linked
/// into there is only one of each name.
fn is_own(function: usize) -> bool {
    (&raw const __ehdr_start as usize..&raw const _end as usize).contains(&function)
}

/// Whether no form of operator delete is the program's: known once the library is loaded. Before, each
/// call asks the loader's table.
static DELETES_ARE_OWN: AtomicBool = AtomicBool::new(false);

/// Looks which operators the program has replaced.
pub(crate) fn find_replaced() {
    let own = is_own(found!("_ZdlPv" as Delete) as usize)
        && is_own(found!("_ZdaPv" as Delete) as usize)
        && is_own(found!("_ZdlPvSt11align_val_t" as DeleteAligned) as usize)
        && is_own(found!("_ZdaPvSt11align_val_t" as DeleteAligned) as usize);
    DELETES_ARE_OWN.store(own, Ordering::Relaxed);
}

#[inline(always)]
fn deletes_are_own() -> bool {
    DELETES_ARE_OWN.load(Ordering::Relaxed)
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

/// Exports operators: a row is a mangled name, its arguments, its result, and what it does.
macro_rules! operators {
    ($($name:ident ($($arg:ident: $type:ty),*) $(-> $result:ty)? = $what:expr;)*) => {$(
        /// The C++ operator of this mangled name.
        ///
        /// # Safety
        /// As the language asks: a pointer is null or from the operator new that goes with it, and is
        /// not used any more.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".text.hot.tiermalloc")]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            #[allow(unused_unsafe)]
            // SAFETY: passed on to the caller; alignments are powers of two.
            unsafe {
                $what
            }
        }
    )*};
}

operators! {
    // The ones that the others go to.
    _Znwm(size: usize) -> Pointer = {
        let object = raw::malloc_cached(size);
        if object.is_null() { tiermalloc_new(size, raw::MIN_ALIGN) } else { object.cast() }
    };
    _ZnwmSt11align_val_t(size: usize, align: usize) -> Pointer = tiermalloc_new(size, sane(align));
    _ZdlPv(pointer: Pointer) = raw::free(pointer.cast());
    _ZdlPvSt11align_val_t(pointer: Pointer, _align: usize) = raw::free(pointer.cast());

    // operator new[]
    _Znam(size: usize) -> Pointer = found!("_Znwm" as New)(size);
    _ZnamSt11align_val_t(size: usize, align: usize) -> Pointer =
        found!("_ZnwmSt11align_val_t" as NewAligned)(size, align);

    // nothrow
    _ZnwmRKSt9nothrow_t(size: usize, _nothrow: usize) -> Pointer =
        nothrow(found!("_Znwm" as New) as usize, size);
    _ZnamRKSt9nothrow_t(size: usize, _nothrow: usize) -> Pointer =
        nothrow(array(found!("_Znam" as New) as usize, found!("_Znwm" as New) as usize), size);
    _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, _nothrow: usize) -> Pointer =
        nothrow_aligned(found!("_ZnwmSt11align_val_t" as NewAligned) as usize, size, align);
    _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, _nothrow: usize) -> Pointer =
        nothrow_aligned(
            array(
                found!("_ZnamSt11align_val_t" as NewAligned) as usize,
                found!("_ZnwmSt11align_val_t" as NewAligned) as usize,
            ),
            size,
            align,
        );

    // operator delete, sized and nothrow
    _ZdlPvm(pointer: Pointer, size: usize) = match deletes_are_own() {
        true => c::free_claimed(pointer, size, raw::MIN_ALIGN),
        false => found!("_ZdlPv" as Delete)(pointer),
    };
    _ZdlPvRKSt9nothrow_t(pointer: Pointer, _nothrow: usize) = found!("_ZdlPv" as Delete)(pointer);
    _ZdlPvmSt11align_val_t(pointer: Pointer, size: usize, align: usize) = match deletes_are_own() {
        true => c::free_claimed(pointer, size, align),
        false => found!("_ZdlPvSt11align_val_t" as DeleteAligned)(pointer, align),
    };
    _ZdlPvSt11align_val_tRKSt9nothrow_t(pointer: Pointer, align: usize, _nothrow: usize) =
        found!("_ZdlPvSt11align_val_t" as DeleteAligned)(pointer, align);

    // operator delete[]
    _ZdaPv(pointer: Pointer) = found!("_ZdlPv" as Delete)(pointer);
    _ZdaPvSt11align_val_t(pointer: Pointer, align: usize) =
        found!("_ZdlPvSt11align_val_t" as DeleteAligned)(pointer, align);
    _ZdaPvm(pointer: Pointer, size: usize) = match deletes_are_own() {
        true => c::free_claimed(pointer, size, raw::MIN_ALIGN),
        false => found!("_ZdaPv" as Delete)(pointer),
    };
    _ZdaPvRKSt9nothrow_t(pointer: Pointer, _nothrow: usize) = found!("_ZdaPv" as Delete)(pointer);
    _ZdaPvmSt11align_val_t(pointer: Pointer, size: usize, align: usize) = match deletes_are_own() {
        true => c::free_claimed(pointer, size, align),
        false => found!("_ZdaPvSt11align_val_t" as DeleteAligned)(pointer, align),
    };
    _ZdaPvSt11align_val_tRKSt9nothrow_t(pointer: Pointer, align: usize, _nothrow: usize) =
        found!("_ZdaPvSt11align_val_t" as DeleteAligned)(pointer, align);
}

/// What an array form comes to: itself if it is the program's, else the plain form.
#[inline]
fn array(array: usize, plain: usize) -> usize {
    if is_own(array) { plain } else { array }
}

/// A nothrow form: its throwing form's answer, or null where that throws. Our own need not throw first.
#[inline]
fn nothrow(throwing: usize, size: usize) -> Pointer {
    if !is_own(throwing) {
        // SAFETY: an operator new of the program's.
        return unsafe { tiermalloc_new_nothrow_by(size, 0, throwing) };
    }
    let object = raw::malloc_cached(size);
    if object.is_null() {
        // SAFETY: the alignment is a power of two.
        return unsafe { tiermalloc_new_nothrow(size, raw::MIN_ALIGN) };
    }
    object.cast()
}

/// [`nothrow`] with an alignment.
#[inline]
fn nothrow_aligned(throwing: usize, size: usize, align: usize) -> Pointer {
    // SAFETY: an operator new of the program's, or an alignment that is a power of two.
    unsafe {
        if is_own(throwing) {
            tiermalloc_new_nothrow(size, sane(align))
        } else {
            tiermalloc_new_nothrow_by(size, align, throwing)
        }
    }
}
