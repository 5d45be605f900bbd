//! Becoming the program.
//!
//! `std::process::Command::exec` resets SIGPIPE and rebuilds the environment; this hands on exactly
//! what we were given, so that running under tiermalloc changes `LD_PRELOAD` and nothing else.

use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What runs a text file that has no `#!` line.
pub const SHELL: &str = "/bin/sh";

/// Replaces this process by `path` with the argument list `arguments` (the first one being the
/// program's own name) and with the environment changed by `settings`; returns why it could not.
pub fn exec(path: &Path, arguments: &[OsString], settings: &[(&str, OsString)]) -> io::Error {
    match prepare(path, arguments, settings) {
        // SAFETY: `Prepared` keeps the strings that its lists point to.
        Ok(prepared) => unsafe { prepared.exec() },
        Err(error) => error,
    }
}

/// [`exec`] of the shell, for a script that the kernel does not take for one.
pub fn exec_shell(
    script: &Path,
    arguments: &[OsString],
    settings: &[(&str, OsString)],
) -> io::Error {
    // A path that starts with a dash would be options to the shell.
    let dash = script.as_os_str().as_bytes().starts_with(b"-");
    let script = if dash { Path::new(".").join(script) } else { script.to_owned() };
    let mut list = vec![OsString::from(SHELL), script.into_os_string()];
    list.extend_from_slice(arguments.get(1..).unwrap_or_default());
    exec(Path::new(SHELL), &list, settings)
}

/// The arguments of `execve`.
struct Prepared {
    path: CString,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What `argv` and `envp` point to, as far as it is ours.
    _strings: Vec<CString>,
}

impl Prepared {
    /// # Safety
    /// The pointers in `argv` and `envp` are to NUL-terminated strings that live, and both lists end
    /// with a null pointer.
    unsafe fn exec(&self) -> io::Error {
        // SAFETY: the caller's promise.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

fn prepare(
    path: &Path,
    arguments: &[OsString],
    settings: &[(&str, OsString)],
) -> io::Result<Prepared> {
    let mut strings = Vec::new();
    let mut own = |bytes: Vec<u8>| -> io::Result<*const c_char> {
        // The pointer is to the heap: it stays when the vector grows.
        let string = CString::new(bytes)?;
        let pointer = string.as_ptr();
        strings.push(string);
        Ok(pointer)
    };
    let mut argv = Vec::new();
    for argument in arguments {
        argv.push(own(argument.as_bytes().to_vec())?);
    }
    argv.push(ptr::null());
    let mut envp = Vec::new();
    for (name, value) in settings {
        envp.push(own([name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    envp.extend(environment().filter(|&(_, entry)| !sets(entry, settings)).map(|(entry, _)| entry));
    envp.push(ptr::null());
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(Prepared { path, argv, envp, _strings: strings })
}

/// Whether an entry of the environment is one of those that `settings` replaces.
fn sets(entry: &[u8], settings: &[(&str, OsString)]) -> bool {
    settings.iter().any(|(name, _)| {
        entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    })
}

/// The entries of the environment as they were given to us, those without a `=` included.
fn environment() -> impl Iterator<Item = (*const c_char, &'static [u8])> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library's `environ` is set before `main`, and this program, which never changes
    // its own environment, has no thread that could.
    let mut next = unsafe { environ };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `next` points into the array, whose end, a null pointer, has not been reached.
        let entry = unsafe { *next };
        if entry.is_null() {
            return None;
        }
        // SAFETY: the entry is not the last one, so there is one more.
        next = unsafe { next.add(1) };
        // SAFETY: entries are NUL-terminated strings, and nothing changes them (above).
        Some((entry, unsafe { CStr::from_ptr(entry) }.to_bytes()))
    })
}
