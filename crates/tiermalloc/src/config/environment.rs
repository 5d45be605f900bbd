//! The environment and the program's own words, read at a moment when little else works.

use core::ffi::{CStr, c_char};

use tiermalloc_sync::sys::files;

/// What the environment says to the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Variables {
    /// `TIERMALLOC_CONF`.
    pub settings: Option<&'static [u8]>,
    /// `TIERMALLOC_CONF_FILE`.
    pub file: Option<&'static CStr>,
}

/// Reads the environment, in one go. Of a variable that is there twice the first counts, as for getenv.
pub(super) fn variables() -> Variables {
    const NAME: &[u8] = b"TIERMALLOC_CONF";
    let mut found = Variables::default();
    let Some(mut next) = entries() else { return found };
    // SAFETY: the environment is an array of C strings that ends with null. It is read once, at the
    // first allocation; that another thread of the program changes it in that moment is as wrong as
    // beside any getenv.
    unsafe {
        while !(*next).is_null() {
            let entry = (*next).cast::<u8>();
            if starts_with(entry, NAME) {
                let rest = CStr::from_ptr(entry.add(NAME.len()).cast());
                if let Some(value) = rest.to_bytes().strip_prefix(b"=") {
                    found.settings = found.settings.or(Some(value));
                } else if rest.to_bytes().starts_with(b"_FILE=") {
                    let value = CStr::from_ptr(rest.as_ptr().add(b"_FILE=".len()));
                    found.file = found.file.or(Some(value));
                }
            }
            next = next.add(1);
        }
    }
    found
}

/// Whether a C string begins so: most are not read beyond their first letter.
///
/// # Safety
/// It ends with NUL.
unsafe fn starts_with(text: *const u8, name: &[u8]) -> bool {
    // SAFETY: no byte of `name` is NUL, so that nothing is read behind one that is.
    name.iter().enumerate().all(|(at, &byte)| unsafe { *text.add(at) } == byte)
}

/// The name under which the program was started, without directories: for a script its own name, and not that of its
/// interpreter. Nothing where the system does not tell.
pub(super) fn name() -> &'static [u8] {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // SAFETY: reads what the kernel has left in memory: a C string, or nothing.
        let path = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const c_char;
        if !path.is_null() {
            // SAFETY: as above.
            return last_part(unsafe { CStr::from_ptr(path) }.to_bytes());
        }
    }
    &[]
}

/// The name of the file that is run, without directories, whatever it was called by; written to `path`.
pub(super) fn file_of_program(path: &mut [u8]) -> &[u8] {
    last_part(files::link_target(c"/proc/self/exe", path).unwrap_or_default())
}

fn last_part(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    &path[start..]
}

/// What the program's symbol `tiermalloc_conf` says, a pointer to a C string or the string itself, if it has such a
/// symbol.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn symbol() -> Option<&'static [u8]> {
    /// No program that can lie anywhere lies below.
    const LOW: usize = 1 << 32;
    /// No program lies above.
    const HIGH: usize = 1 << 48;
    let symbol: *const *const c_char;
    // A weak reference: hardly a program has it.
    // SAFETY: reads an entry of the table that the loader has filled, null where there is no such
    // symbol.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            ".weak tiermalloc_conf",
            "mov {0}, qword ptr [rip + tiermalloc_conf@GOTPCREL]",
            out(reg) symbol,
            options(nomem, nostack, preserves_flags)
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            ".weak tiermalloc_conf",
            "adrp {0}, :got:tiermalloc_conf",
            "ldr {0}, [{0}, :got_lo12:tiermalloc_conf]",
            out(reg) symbol,
            options(nomem, nostack, preserves_flags)
        );
    }
    if symbol.is_null() {
        return None;
    }
    // SAFETY: a variable of the program, of eight bytes at least: what it says is no shorter. It is read once.
    let text = unsafe { symbol.read_unaligned() };
    if (text as usize).to_ne_bytes().iter().all(|byte| matches!(byte, b' '..=b'~')) {
        // An array: no address looks like that.
        // SAFETY: a C string, then.
        return Some(unsafe { CStr::from_ptr(symbol.cast()) }.to_bytes());
    }
    // While programs are being relocated somebody may allocate already. An address that has not been relocated is a
    // distance from the program's beginning, or null.
    let relocated = text as usize >= LOW || (symbol as usize) < LOW;
    if text.is_null() || !relocated || text as usize >= HIGH {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn symbol() -> Option<&'static [u8]> {
    None
}

/// Whether the C library, or the kernel's list of arguments, is there to be asked.
pub(super) fn is_known() -> bool {
    entries().is_some()
}

/// Whether the program is setuid or the like: then whoever set its environment has no say here.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_privileged() -> bool {
    // SAFETY: reads what the loader has left in memory.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_privileged() -> bool {
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
