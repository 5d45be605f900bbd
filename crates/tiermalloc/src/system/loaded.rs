//! The libraries that the loader has loaded, without asking it: its list for debuggers.
//!
//! `_r_debug` is where debuggers find what is loaded. It is filled before anything is relocated, and takes no lock
//! to read; the loader changes it when a program opens or closes libraries, but not the entries up to the C library, which is
//! loaded at the start: no more than these are read, at a process's first allocation or before a library is opened.

use super::symbols::Library;

/// The C library of this process, if it is a library of its own.
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(super) fn c_library() -> Option<Library> {
    // A process has some hundred libraries at most; a list that is longer goes round in a circle.
    const MOST: usize = 10_000;
    let mut map = imp::first();
    for _ in 0..MOST {
        // SAFETY: the loader's list, whose entries live as long as what they describe.
        let entry = unsafe { map.as_ref()? };
        if imp::is_file(entry, b"libc.so.6") {
            // SAFETY: what the loader has mapped of it stays mapped.
            return unsafe { Library::at(entry.base, entry.dynamic as usize) }
                .filter(|library| library.is_called(b"libc.so.6"));
        }
        map = entry.next;
    }
    None
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(super) fn c_library() -> Option<Library> {
    None
}

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod imp {
    use core::ffi::{CStr, c_char, c_int, c_void};
    use core::ptr;

    /// What `<link.h>` calls `struct link_map`, as far as it is public.
    #[repr(C)]
    pub(super) struct Entry {
        pub base: usize,
        name: *const c_char,
        pub dynamic: *const c_void,
        pub next: *const Entry,
    }

    /// `struct r_debug`, up to the list.
    #[repr(C)]
    struct Debug {
        version: c_int,
        list: *const Entry,
    }

    /// Whether the last part of an entry's path is `file`.
    pub(super) fn is_file(entry: &Entry, file: &[u8]) -> bool {
        if entry.name.is_null() {
            return false;
        }
        // SAFETY: a string of the loader's, which ends.
        let path = unsafe { CStr::from_ptr(entry.name) }.to_bytes();
        path.strip_suffix(file).is_some_and(|rest| matches!(rest.last(), None | Some(b'/')))
    }

    /// The first entry, null where there is no loader.
    pub(super) fn first() -> *const Entry {
        let debug: *const Debug;
        // A weak reference: a program without a loader has no such symbol.
        // SAFETY: reads an entry of the table that the loader has filled, null where there is no such symbol.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            core::arch::asm!(
                ".weak _r_debug",
                "mov {0}, qword ptr [rip + _r_debug@GOTPCREL]",
                out(reg) debug,
                options(nomem, nostack, preserves_flags)
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::asm!(
                ".weak _r_debug",
                "adrp {0}, :got:_r_debug",
                "ldr {0}, [{0}, #:got_lo12:_r_debug]",
                out(reg) debug,
                options(nomem, nostack, preserves_flags)
            );
            if debug.is_null() || (*debug).version < 1 { ptr::null() } else { (*debug).list }
        }
    }
}
