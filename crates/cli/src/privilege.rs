//! Whether executing a file makes the process one that the loader must not trust the environment
//! of (`AT_SECURE`): it then ignores `LD_PRELOAD`.
//!
//! The kernel's rule (`cap_bprm_creds_from_file`), which this follows: the effective user or group
//! would differ from the real one, or a user other than root would gain capabilities from the file.
//! So a set-user-ID root program started *by* root is an ordinary one.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;

/// What a program gains by being executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// It is set-user-ID to another user.
    User,
    /// It is set-group-ID to another group.
    Group,
    /// It has file capabilities.
    Capabilities,
    /// This process itself already runs with rights that are not its caller's.
    Inherited,
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "it is set-user-ID to another user",
            Self::Group => "it is set-group-ID to another group",
            Self::Capabilities => "it has file capabilities",
            Self::Inherited => "tiermalloc itself runs set-user-ID or set-group-ID",
        })
    }
}

/// What executing `path` gains, or `None` when the loader will honour `LD_PRELOAD`.
pub fn gain(path: &Path) -> io::Result<Option<Gain>> {
    let metadata = path.metadata()?;
    let honoured = !mounted_nosuid(path)?;
    // SAFETY: these calls take nothing and always succeed.
    let (user, effective_user, group, effective_group) =
        unsafe { (libc::getuid(), libc::geteuid(), libc::getgid(), libc::getegid()) };
    let mode = metadata.mode();
    let set_bits = honoured && !no_new_privileges();
    if set_bits && mode & SET_USER != 0 {
        if metadata.uid() != user {
            return Ok(Some(Gain::User));
        }
    } else if effective_user != user {
        return Ok(Some(Gain::Inherited));
    }
    if set_bits && mode & SET_GROUP != 0 && mode & GROUP_EXECUTE != 0 {
        if metadata.gid() != group {
            return Ok(Some(Gain::Group));
        }
    } else if effective_group != group {
        return Ok(Some(Gain::Inherited));
    }
    if honoured && user != 0 && file_capabilities(path) {
        return Ok(Some(Gain::Capabilities));
    }
    Ok(None)
}

/// Whether the file system that `path` is on ignores set-ID bits and file capabilities.
fn mounted_nosuid(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is NUL-terminated, and `facts` is room for what the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `facts`.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_flag & libc::ST_NOSUID != 0)
}

/// Whether this process has given up gaining rights, as containers and sandboxes have.
#[cfg(target_os = "linux")]
fn no_new_privileges() -> bool {
    // SAFETY: this request takes no pointers; the unused arguments must be 0.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Whether the file has capabilities that its user would gain.
#[cfg(target_os = "linux")]
fn file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // Revision 3, the longest, has 24 bytes.
    let mut value = [0u8; 64];
    // SAFETY: both names are NUL-terminated, and the call writes at most `value.len()` bytes.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(length).is_ok_and(|length| grants(&value[..length.min(value.len())]))
}

/// Whether a `security.capability` attribute grants anything: its "effective" flag, or a permitted
/// capability. Layout (little-endian words): flags, then permitted and inheritable, twice.
#[cfg(target_os = "linux")]
fn grants(attribute: &[u8]) -> bool {
    let word = |i: usize| {
        let bytes = attribute.get(i * 4..i * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let set = |i: usize, mask: u32| word(i).is_some_and(|word| word & mask != 0);
    set(0, 1) || set(1, u32::MAX) || set(3, u32::MAX)
}

#[cfg(not(target_os = "linux"))]
fn no_new_privileges() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn file_capabilities(_: &Path) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn capabilities_count_when_they_are_granted() {
        let attribute = |words: [u32; 5]| words.map(u32::to_le_bytes).concat();
        assert!(!grants(&attribute([0x0200_0000, 0, 0, 0, 0])));
        assert!(grants(&attribute([0x0200_0001, 0, 0, 0, 0])));
        assert!(grants(&attribute([0x0200_0000, 1 << 10, 0, 0, 0])));
        assert!(grants(&attribute([0x0200_0000, 0, 0, 1, 0])));
        assert!(!grants(&attribute([0x0200_0000, 0, 1, 0, 1])));
        for end in 0..4 {
            assert!(!grants(&[0xff; 4][..end]));
        }
    }

    #[test]
    fn an_ordinary_program_gains_nothing() {
        assert_eq!(gain(Path::new("/bin/true")).unwrap(), None);
        assert!(gain(Path::new("/nonexistent")).is_err());
    }
}
