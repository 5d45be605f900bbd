//! The loader: what is asked of it, and `dlopen` itself, because of `RTLD_DEEPBIND`.
//!
//! A library that a program opens with that flag looks for each name in itself and in the libraries that it needs before
//! it looks where everybody else does. glibc is among these, so it gets glibc's `malloc` and `free`, and the first
//! block that goes from it to the program, or the other way, ends the program (php opens its modules so, as do
//! Apache, BIND and Samba). So before the first such call the names in glibc's own table of symbols are made to
//! stand for the functions here: then there is one heap in the process, whoever looks where.
//!
//! That costs some ten microseconds and a few pages, and is done where it is needed alone, which is why `dlopen` is here at all. It
//! ends in a jump to glibc's: the loader goes by the address that it returns to, to know who is asking (whose `RUNPATH` it
//! searches, whose namespace it is).

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type Look = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// The C library's function behind ours; 0: not looked for yet.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The `dlopen` that programs would have called without the one here.
pub(crate) fn next() -> Open {
    // Relaxed: whoever looks finds the same.
    let known = NEXT.load(Ordering::Relaxed);
    if known != 0 {
        // SAFETY: written below, the address of such a function.
        return unsafe { core::mem::transmute::<usize, Open>(known) };
    }
    let found = match look(libc::RTLD_NEXT, c"dlopen") {
        0 => of_a_static_program(),
        found => found,
    };
    if found == 0 {
        return nothing;
    }
    NEXT.store(found, Ordering::Relaxed);
    // SAFETY: the C library's function of that name, or its own name for it, which has its type.
    unsafe { core::mem::transmute::<usize, Open>(found) }
}

/// Where there is no other one.
unsafe extern "C" fn nothing(_: *const c_char, _: c_int) -> *mut c_void {
    ptr::null_mut()
}

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

/// What a static program's C library calls `dlopen` by itself, for what it loads on its own behalf: there in nearly each of
/// them, while our own `dlopen` keeps the one of that name out.
fn of_a_static_program() -> usize {
    let open: usize;
    // SAFETY: as in `look`.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            ".weak __libc_dlopen_mode",
            "mov {0}, qword ptr [rip + __libc_dlopen_mode@GOTPCREL]",
            out(reg) open,
            options(nostack, preserves_flags)
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            ".weak __libc_dlopen_mode",
            "adrp {0}, :got:__libc_dlopen_mode",
            "ldr {0}, [{0}, #:got_lo12:__libc_dlopen_mode]",
            out(reg) open,
            options(nostack, preserves_flags)
        );
    }
    open
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod deep {
    use core::ffi::{c_char, c_int, c_void};
    use core::sync::atomic::{AtomicU8, Ordering};

    use facade::raw;

    use super::{Open, look, next};
    use crate::exports;

    /// Whether glibc's names stand for ours: not, soon, or as far as they ever will.
    static BOUND: AtomicU8 = AtomicU8::new(NOT);
    const NOT: u8 = 0;
    const SOON: u8 = 1;
    const DONE: u8 = 2;

    /// How often a thread lets others run while one of them is about it. It takes microseconds; in the child of a
    /// fork nobody may be.
    const TURNS: usize = 1000;

    /// See the C library's documentation.
    ///
    /// # Safety
    /// As C asks.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
        let open = prepared(mode);
        // SAFETY: passed on to the caller. The last thing that is done here (see the module).
        unsafe { open(file, mode) }
    }

    /// What to go on with, once it is safe to.
    #[inline(never)]
    fn prepared(mode: c_int) -> Open {
        if mode & libc::RTLD_DEEPBIND != 0 {
            bind();
        }
        next()
    }

    /// Makes glibc's names stand for ours, if this library's `malloc` is the program's.
    #[cold]
    fn bind() {
        match BOUND.compare_exchange(NOT, SOON, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                let ours = exports::malloc as *const () as usize;
                if look(libc::RTLD_DEFAULT, c"malloc") == ours {
                    // SAFETY: the functions are what the names promise, and what everybody else has got by them all
                    // the time; of all threads one comes here.
                    unsafe { raw::rename_in_c_library(&exports::names()) };
                }
                BOUND.store(DONE, Ordering::Release);
            }
            Err(DONE) => {}
            Err(_) => {
                for _ in 0..TURNS {
                    if BOUND.load(Ordering::Acquire) == DONE {
                        break;
                    }
                    // SAFETY: no conditions.
                    unsafe { libc::sched_yield() };
                }
            }
        }
    }
}
