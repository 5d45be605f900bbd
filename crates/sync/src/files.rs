//! Files, straight from the kernel: for whoever has something to write where neither `errno` nor thread-local
//! variables may be touched.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const FCNTL: usize = 72;
    pub const GETTID: usize = 186;
    pub const OPENAT: usize = 257;
    pub const NEWFSTATAT: usize = 262;
    pub const UNLINKAT: usize = 263;
    pub const RENAMEAT: usize = 264;
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod nr {
    pub const FCNTL: usize = 25;
    pub const UNLINKAT: usize = 35;
    pub const RENAMEAT: usize = 38;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const NEWFSTATAT: usize = 79;
    pub const FSTAT: usize = 80;
    pub const GETTID: usize = 178;
}

use core::ffi::CStr;

/// A file descriptor.
pub type Fd = i32;

/// What a file is, as far as it is asked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device and number of the file.
    pub file: (u64, u64),
    /// Whether it is a regular one.
    pub is_regular: bool,
    /// Whether it is a name that stands for another.
    pub is_link: bool,
}

impl Identity {
    #[allow(clippy::unnecessary_cast)] // the fields' types differ between systems
    fn of(stat: &libc::stat) -> Self {
        Self {
            file: (stat.st_dev as u64, stat.st_ino as u64),
            is_regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
            is_link: stat.st_mode & libc::S_IFMT == libc::S_IFLNK,
        }
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod kernel {
    use core::ffi::CStr;

    use super::{Fd, Identity, nr};
    use crate::sys::{ok, syscall};

    const HERE: usize = libc::AT_FDCWD as isize as usize;

    /// Opens a file; the answer is never negative. `Err`: the kernel's error number.
    pub fn open(name: &CStr, flags: i32, mode: u32) -> Result<Fd, i32> {
        let arguments = [HERE, name.as_ptr() as usize, flags as usize, mode as usize, 0, 0];
        // SAFETY: the name is a C string, and a new descriptor is nobody's yet.
        let answer = unsafe { syscall(nr::OPENAT, arguments) };
        if answer < 0 { Err(-answer as i32) } else { Ok(answer as Fd) }
    }

    /// Closes a descriptor of the caller's.
    pub fn close(fd: Fd) {
        // SAFETY: the caller's own.
        unsafe { syscall(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
    }

    /// Bytes written, or the kernel's error number.
    pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, i32> {
        // SAFETY: the slice is readable for its length.
        let answer = unsafe {
            syscall(nr::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
        };
        if answer < 0 { Err(-answer as i32) } else { Ok(answer as usize) }
    }

    /// Bytes read, or the kernel's error number.
    pub fn read(fd: Fd, bytes: &mut [u8]) -> Result<usize, i32> {
        let to = bytes.as_mut_ptr() as usize;
        // SAFETY: the slice is writable for its length.
        let answer = unsafe { syscall(nr::READ, [fd as usize, to, bytes.len(), 0, 0, 0]) };
        if answer < 0 { Err(-answer as i32) } else { Ok(answer as usize) }
    }

    /// Gives a file another name, which may be one that there is.
    pub fn rename(from: &CStr, to: &CStr) -> bool {
        let arguments = [HERE, from.as_ptr() as usize, HERE, to.as_ptr() as usize, 0, 0];
        // SAFETY: both are C strings.
        ok(unsafe { syscall(nr::RENAMEAT, arguments) }).is_some()
    }

    /// Takes a file's name away.
    pub fn unlink(name: &CStr) {
        // SAFETY: a C string.
        unsafe { syscall(nr::UNLINKAT, [HERE, name.as_ptr() as usize, 0, 0, 0, 0]) };
    }

    /// What a descriptor stands for; `None`: it is not open.
    pub fn identity(fd: Fd) -> Option<Identity> {
        let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: room for what the kernel writes, which is C's structure on these machines.
        unsafe {
            ok(syscall(nr::FSTAT, [fd as usize, stat.as_mut_ptr() as usize, 0, 0, 0, 0]))?;
            Some(Identity::of(stat.assume_init_ref()))
        }
    }

    /// What a name stands for, itself or with links followed; `None`: nothing.
    pub fn identity_of(name: &CStr, follow: bool) -> Option<Identity> {
        let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
        let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW as usize };
        let arguments = [HERE, name.as_ptr() as usize, stat.as_mut_ptr() as usize, flags, 0, 0];
        // SAFETY: as above, and a C string.
        unsafe {
            ok(syscall(nr::NEWFSTATAT, arguments))?;
            Some(Identity::of(stat.assume_init_ref()))
        }
    }

    /// A second descriptor for the same file, numbered `least` or more, which a new program does not get.
    pub fn duplicate(fd: Fd, least: Fd) -> Option<Fd> {
        let command = libc::F_DUPFD_CLOEXEC as usize;
        // SAFETY: a new descriptor is nobody's yet.
        ok(unsafe { syscall(nr::FCNTL, [fd as usize, command, least as usize, 0, 0, 0]) })
            .map(|fd| fd as Fd)
    }

    /// Number of the calling thread, as the kernel has it.
    pub fn thread() -> u32 {
        // SAFETY: the call has no effect.
        unsafe { syscall(nr::GETTID, [0; 6]) as u32 }
    }
}

/// The C library's functions, for every other unix.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod portable {
    use core::ffi::CStr;

    use super::{Fd, Identity};

    /// Opens a file. `Err`: no error number is known.
    pub fn open(name: &CStr, flags: i32, mode: u32) -> Result<Fd, i32> {
        // SAFETY: a C string.
        let fd = unsafe { libc::open(name.as_ptr(), flags, mode) };
        if fd < 0 { Err(0) } else { Ok(fd) }
    }

    /// Closes a descriptor of the caller's.
    pub fn close(fd: Fd) {
        // SAFETY: the caller's own.
        unsafe { libc::close(fd) };
    }

    /// Bytes written.
    pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, i32> {
        // SAFETY: the slice is readable for its length.
        usize::try_from(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
            .map_err(|_| 0)
    }

    /// Bytes read.
    pub fn read(fd: Fd, bytes: &mut [u8]) -> Result<usize, i32> {
        // SAFETY: the slice is writable for its length.
        usize::try_from(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })
            .map_err(|_| 0)
    }

    /// Gives a file another name.
    pub fn rename(from: &CStr, to: &CStr) -> bool {
        // SAFETY: C strings.
        unsafe { libc::rename(from.as_ptr(), to.as_ptr()) == 0 }
    }

    /// Takes a file's name away.
    pub fn unlink(name: &CStr) {
        // SAFETY: a C string.
        unsafe { libc::unlink(name.as_ptr()) };
    }

    /// What a descriptor stands for.
    pub fn identity(fd: Fd) -> Option<Identity> {
        let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: room for what is written.
        unsafe {
            (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| Identity::of(stat.assume_init_ref()))
        }
    }

    /// What a name stands for.
    pub fn identity_of(name: &CStr, follow: bool) -> Option<Identity> {
        let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: room for what is written, and a C string.
        unsafe {
            let ask = if follow { libc::stat } else { libc::lstat };
            (ask(name.as_ptr(), stat.as_mut_ptr()) == 0)
                .then(|| Identity::of(stat.assume_init_ref()))
        }
    }

    /// A second descriptor for the same file.
    pub fn duplicate(fd: Fd, least: Fd) -> Option<Fd> {
        // SAFETY: a new descriptor is nobody's yet.
        let fd = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) };
        (fd >= 0).then_some(fd)
    }

    /// Not known here.
    pub fn thread() -> u32 {
        0
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use kernel::*;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub use portable::*;

/// Writes all of `bytes`, in as few calls as the kernel makes of it. `false`: it could not.
pub fn write_all(fd: Fd, mut bytes: &[u8]) -> bool {
    // A reader that does not keep up with a descriptor that does not wait is waited for this long (ms).
    let mut patience = 1000;
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(libc::EINTR) => {}
            Err(libc::EAGAIN) if patience > 0 => {
                patience -= 1;
                crate::sys::sleep(1);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Whether the name is one that a C string can hold, as one in `room`.
pub fn c_name<'a>(name: &[u8], room: &'a mut [u8]) -> Option<&'a CStr> {
    let room = room.get_mut(..=name.len())?;
    let (text, end) = room.split_at_mut(name.len());
    text.copy_from_slice(name);
    end.fill(0);
    CStr::from_bytes_with_nul(room).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_named_anew_and_read() {
        let mut room = [[0; 300]; 2];
        let directory = std::env::temp_dir();
        let path = |name: &str| {
            let name = std::format!("{name}.{}", std::process::id());
            directory.join(name).into_os_string().into_encoded_bytes()
        };
        let [first, second] = &mut room;
        let one = c_name(&path("tiermalloc-sync-one"), first).unwrap();
        let two = c_name(&path("tiermalloc-sync-two"), second).unwrap();
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        let fd = open(one, flags, 0o600).unwrap();
        assert!(open(one, flags, 0o600).is_err(), "it is there");
        assert!(write_all(fd, b"some") && write_all(fd, b" text"));
        let copy = duplicate(fd, 50).unwrap();
        assert!(copy >= 50 && identity(copy) == identity(fd) && identity(fd).is_some());
        close(copy);
        assert_eq!(identity(copy), None);
        close(fd);
        assert!(rename(one, two));
        assert_eq!(identity_of(one, true), None);
        assert!(identity_of(two, false).unwrap().is_regular);
        let fd = open(two, libc::O_RDONLY, 0).unwrap();
        let mut bytes = [0; 20];
        assert_eq!((read(fd, &mut bytes), &bytes[..9]), (Ok(9), &b"some text"[..]));
        assert!(!write_all(fd, b"x"), "not for writing");
        close(fd);
        unlink(two);
        assert_eq!(identity_of(two, true), None);
        assert_eq!(c_name(b"a\0b", first), None);
        assert_eq!(c_name(&[b'a'; 300], first), None);
    }
}
