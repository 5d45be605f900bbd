//! The loader: what is asked of it.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};

pub(crate) type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type Look = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// The address of a symbol as the loader finds it by that handle, or from that place on; 0 if there is none, or no loader.
pub(crate) fn look(place: *mut c_void, name: &CStr) -> usize {
    let dlsym: usize;
    // A weak reference: in a static program it would draw in what only few such need.
    // SAFETY: reads an entry of the table that the loader has filled.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            ".weak dlsym",
            "mov {0}, qword ptr [rip + dlsym@GOTPCREL]",
            out(reg) dlsym,
            options(nostack, preserves_flags)
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            ".weak dlsym",
            "adrp {0}, :got:dlsym",
            "ldr {0}, [{0}, #:got_lo12:dlsym]",
            out(reg) dlsym,
            options(nostack, preserves_flags)
        );
        if dlsym == 0 {
            return 0;
        }
        let look = core::mem::transmute::<usize, Look>(dlsym);
        look(place, name.as_ptr()) as usize
    }
}

/// The C library's `dlopen`, or whose ever comes behind this library, if there is a loader.
pub(crate) fn open() -> Option<Open> {
    let found = look(libc::RTLD_NEXT, c"dlopen");
    // SAFETY: the function of that name has this type.
    (found != 0).then(|| unsafe { core::mem::transmute::<usize, Open>(found) })
}
