//! The environment, read at a moment when little else works.

use core::ffi::{CStr, c_char};

/// The value of an environment variable; `None` without one, and in programs that run with more rights
/// than who started them.
pub(super) fn variable(name: &[u8]) -> Option<&'static [u8]> {
    let mut next = entries()?;
    if is_privileged() {
        return None;
    }
    // SAFETY: the environment is an array of C strings that ends with null. It is read once, at the
    // first allocation; that another thread of the program changes it in that moment is as wrong as
    // beside any getenv.
    unsafe {
        while !(*next).is_null() {
            let entry = CStr::from_ptr(*next).to_bytes();
            if let Some(value) = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                return Some(value);
            }
            next = next.add(1);
        }
    }
    None
}

/// Whether the program is setuid or the like: then whoever set its environment has no say here.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_privileged() -> bool {
    // SAFETY: reads what the loader has left in memory.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_privileged() -> bool {
    // SAFETY: these only ask.
    unsafe { libc::geteuid() != libc::getuid() || libc::getegid() != libc::getgid() }
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The first entry of the environment, if it is known yet.
fn entries() -> Option<*const *const c_char> {
    // SAFETY: a variable of the C library, a word.
    let known = unsafe { (&raw const environ).read_volatile() };
    if known.is_null() { initial_entries() } else { Some(known) }
}

/// Before the C library has started, as in resolvers of indirect functions: what the kernel has put on
/// the stack, the number of arguments, the arguments, null, the environment, null.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn initial_entries() -> Option<*const *const c_char> {
    let stack: *const *const usize;
    // A weak reference: it is glibc's loader that knows.
    // SAFETY: reads an entry of the table that the loader has filled, null where there is no such
    // symbol.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            ".weak __libc_stack_end",
            "mov {0}, qword ptr [rip + __libc_stack_end@GOTPCREL]",
            out(reg) stack,
            options(nomem, nostack, preserves_flags)
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            ".weak __libc_stack_end",
            "adrp {0}, :got:__libc_stack_end",
            "ldr {0}, [{0}, :got_lo12:__libc_stack_end]",
            out(reg) stack,
            options(nomem, nostack, preserves_flags)
        );
        let bottom = stack.as_ref()?.as_ref()?;
        let arguments = *bottom;
        // An absurd number means that it was not what it is meant to be.
        (arguments < 1 << 24).then(|| (&raw const *bottom).add(arguments + 2).cast())
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn initial_entries() -> Option<*const *const c_char> {
    None
}
