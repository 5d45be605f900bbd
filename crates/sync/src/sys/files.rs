//! Reading a file: the four calls that it takes, without `errno` and without waiting.

use core::ffi::CStr;
use core::mem::MaybeUninit;

/// A regular file, open for reading; closed when dropped.
#[derive(Debug)]
pub struct File(libc::c_int);

/// Why there is no file to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// The system's number for it, as in `errno`.
    Error(i32),
    /// It is a directory, a pipe, a device.
    NotRegular,
}

impl File {
    /// Opens a regular file for reading. Never waits, as opening a pipe does, and no program that is started
    /// later inherits it.
    ///
    /// # Errors
    /// The system refuses, or it is no regular file.
    pub fn open(path: &CStr) -> Result<Self, NoFile> {
        const FLAGS: libc::c_int =
            libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
        // SAFETY: the path ends with NUL; opening for reading changes nothing.
        let number = retried(|| unsafe { calls::open(path, FLAGS) }).map_err(NoFile::Error)?;
        let file = Self(number as libc::c_int);
        let mut facts = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `facts` is writable and of the size that the kernel has it.
        retried(|| unsafe { calls::stat(file.0, facts.as_mut_ptr()) }).map_err(NoFile::Error)?;
        // SAFETY: filled by the call that has succeeded.
        let mode = unsafe { facts.assume_init() }.st_mode;
        if mode & libc::S_IFMT == libc::S_IFREG { Ok(file) } else { Err(NoFile::NotRegular) }
    }

    /// The next bytes of the file, at most as many as `into` is long; 0 at its end.
    ///
    /// # Errors
    /// The system's number for what went wrong.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, i32> {
        // SAFETY: `into` is writable for its length.
        retried(|| unsafe { calls::read(self.0, into) })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened here, and nobody else's.
        unsafe { calls::close(self.0) };
    }
}

/// What a symbolic link points to: the bytes of it that are written to `into`. `None` if there is no such link, or
/// it is as long as that and perhaps longer.
pub fn link_target<'a>(path: &CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: the path ends with NUL, and `into` is writable for its length.
    let length = retried(|| unsafe { calls::readlink(path, into) }).ok()?;
    into.get(..length).filter(|target| target.len() < into.len())
}

/// The answer of a call that a signal may interrupt.
fn retried(mut call: impl FnMut() -> isize) -> Result<usize, i32> {
    loop {
        match call() {
            answer if answer >= 0 => return Ok(answer as usize),
            answer if answer == -(libc::EINTR as isize) => {}
            answer => return Err(-answer as i32),
        }
    }
}

/// Straight to the kernel.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
    use core::ffi::CStr;

    use super::super::syscall;

    #[cfg(target_arch = "x86_64")]
    mod nr {
        pub const READ: usize = 0;
        pub const CLOSE: usize = 3;
        pub const FSTAT: usize = 5;
        pub const OPENAT: usize = 257;
        pub const READLINKAT: usize = 267;
    }

    #[cfg(target_arch = "aarch64")]
    mod nr {
        pub const OPENAT: usize = 56;
        pub const CLOSE: usize = 57;
        pub const READ: usize = 63;
        pub const READLINKAT: usize = 78;
        pub const FSTAT: usize = 80;
    }

    const HERE: usize = libc::AT_FDCWD as usize;

    pub unsafe fn open(path: &CStr, flags: libc::c_int) -> isize {
        // SAFETY: passed on to the caller, here and below.
        unsafe { syscall(nr::OPENAT, [HERE, path.as_ptr() as usize, flags as usize, 0, 0, 0]) }
    }

    pub unsafe fn stat(file: libc::c_int, facts: *mut libc::stat) -> isize {
        // SAFETY: as above.
        unsafe { syscall(nr::FSTAT, [file as usize, facts as usize, 0, 0, 0, 0]) }
    }

    pub unsafe fn read(file: libc::c_int, into: &mut [u8]) -> isize {
        // SAFETY: as above.
        unsafe {
            syscall(nr::READ, [file as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0])
        }
    }

    pub unsafe fn close(file: libc::c_int) -> isize {
        // SAFETY: as above.
        unsafe { syscall(nr::CLOSE, [file as usize, 0, 0, 0, 0, 0]) }
    }

    pub unsafe fn readlink(path: &CStr, into: &mut [u8]) -> isize {
        let (path, buffer) = (path.as_ptr() as usize, into.as_mut_ptr() as usize);
        // SAFETY: as above.
        unsafe { syscall(nr::READLINKAT, [HERE, path, buffer, into.len(), 0, 0]) }
    }
}

/// Through libc, which puts the number of an error where the caller has to look for it.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod calls {
    use core::ffi::CStr;

    pub unsafe fn open(path: &CStr, flags: libc::c_int) -> isize {
        // SAFETY: passed on to the caller, here and below.
        answer(unsafe { libc::open(path.as_ptr(), flags) } as isize)
    }

    pub unsafe fn stat(file: libc::c_int, facts: *mut libc::stat) -> isize {
        // SAFETY: as above.
        answer(unsafe { libc::fstat(file, facts) } as isize)
    }

    pub unsafe fn read(file: libc::c_int, into: &mut [u8]) -> isize {
        // SAFETY: as above.
        answer(unsafe { libc::read(file, into.as_mut_ptr().cast(), into.len()) } as isize)
    }

    pub unsafe fn close(file: libc::c_int) -> isize {
        // SAFETY: as above.
        answer(unsafe { libc::close(file) } as isize)
    }

    pub unsafe fn readlink(path: &CStr, into: &mut [u8]) -> isize {
        // SAFETY: as above.
        answer(
            unsafe { libc::readlink(path.as_ptr(), into.as_mut_ptr().cast(), into.len()) } as isize
        )
    }

    fn answer(answer: isize) -> isize {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        use libc::__errno_location as errno_location;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        use libc::__error as errno_location;
        // SAFETY: the location is the thread's own.
        if answer < 0 { -(unsafe { *errno_location() } as isize) } else { answer }
    }
}
