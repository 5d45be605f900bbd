//! Finding the program, as `execvp` does.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, reason};

/// What the C library searches when `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that running `name` means: `name` itself when it has a slash, else the first file in
/// `PATH` that may be executed. An empty element of `PATH` is the current directory.
pub fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.is_empty() {
        return Err(Failure::not_found("cannot run '': no program is named"));
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path);
    }
    let search = env::var_os("PATH").unwrap_or_else(|| OsString::from(DEFAULT_PATH));
    let mut denied = None;
    for directory in env::split_paths(&search) {
        let path = if directory.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            directory.join(name)
        };
        match executable(&path) {
            Ok(()) => return Ok(path),
            // A file that is there but may not be run is the answer when nothing better comes.
            Err(failure) if denied.is_none() && may_exist(&path) => denied = Some(failure),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| {
        let name = Path::new(name).display();
        Failure::not_found(format!("cannot run '{name}': it is in no directory of PATH"))
    }))
}

/// Whether there is such a file, as far as this user may know.
fn may_exist(path: &Path) -> bool {
    path.metadata().map_or_else(|error| error.kind() == ErrorKind::PermissionDenied, |_| true)
}

/// Whether the kernel would take `path` for a program, whatever is in it.
pub fn executable(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let subject = format!("cannot run '{shown}'");
    let metadata = path.metadata().map_err(|error| Failure::of_system(&subject, &error))?;
    if metadata.is_dir() {
        return Err(Failure::not_runnable(format!("{subject}: it is a directory")));
    }
    if !metadata.is_file() {
        return Err(Failure::not_runnable(format!("{subject}: it is not a regular file")));
    }
    may_execute(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Failure::not_runnable(format!(
            "{subject}: it is not executable for this user\n\
             `chmod +x` makes it so, unless its file system is mounted noexec."
        )),
        _ => Failure::not_runnable(format!("{subject}: {}", reason(&error))),
    })
}

/// Whether the effective user may execute the file (its mode, ACLs, and a noexec mount).
fn may_execute(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that lives through the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
