//! Where statistics are written.
//!
//! | format | file |
//! |---|---|
//! | text | appended to |
//! | JSON | appended to, a line each time |
//! | OpenMetrics | replaced as a whole: written under another name, and then given its own |
//!
//! Only a regular file is replaced. What is a link to one is emptied and written; what is a device, a pipe with
//! a name, or lies in `/dev` or `/proc`, is written to in every case. The text of one time is one system call, so
//! that those of several processes do not mix.
//!
//! A program with more rights than its user writes under absolute names alone, and through no link: where it stands,
//! and what lies in a directory that others write to, is its user's choice.

use core::ffi::CStr;

use tiermalloc_sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tiermalloc_sync::files::{self, Fd};

use crate::config::{self, Format, Text};
use crate::line::Line;

const STDERR: Fd = 2;
/// Our own descriptor for standard error begins here if there may be so many.
const HIGH: Fd = 200;
/// Bytes of a name, with the process's number in it and what is added for a while.
const NAME: usize = 2 * Text::MOST + 64;

/// A second descriptor for what standard error was at the start, and which file that is: programs close standard
/// error before they end, so as to hear of errors. 0: there is none.
static SECOND: AtomicU32 = AtomicU32::new(0);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
/// Whether it was said that something is wrong with the file.
static COMPLAINED: AtomicBool = AtomicBool::new(false);

/// Keeps standard error open, for the end of the program.
pub(super) fn keep_stderr() {
    let Some(identity) = files::identity(STDERR) else { return };
    let second = files::duplicate(STDERR, HIGH).or_else(|| files::duplicate(STDERR, 3));
    if let Some(fd) = second {
        DEVICE.store(identity.file.0, Ordering::Relaxed);
        INODE.store(identity.file.1, Ordering::Relaxed);
        SECOND.store(fd as u32, Ordering::Relaxed);
    }
}

/// Standard error, or what it was at the start if it is closed now and nobody has taken that descriptor.
fn stderr() -> Fd {
    let second = SECOND.load(Ordering::Relaxed) as Fd;
    let ours = (DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed));
    if second > 0
        && files::identity(STDERR).is_none()
        && files::identity(second).is_some_and(|now| now.file == ours)
    {
        return second;
    }
    STDERR
}

/// Writes `text` to the file that is called so, or to standard error.
pub(super) fn deliver(file: &Text, process: u32, format: Format, text: &[u8]) {
    if file.is_empty() {
        files::write_all(stderr(), text);
        return;
    }
    let mut room = [0; NAME];
    let mut name = Name::new();
    name.expand(file.as_bytes(), process);
    let privileged = config::is_privileged();
    let links = if privileged { libc::O_NOFOLLOW } else { 0 };
    let result = match files::c_name(name.as_bytes(), &mut room) {
        None => Err(libc::ENAMETOOLONG),
        Some(_) if privileged && !name.as_bytes().starts_with(b"/") => Err(libc::EPERM),
        Some(path) => match way(path, format) {
            Way::Append => write(path, libc::O_APPEND | links, text),
            Way::Overwrite => write(path, libc::O_TRUNC | links, text),
            Way::Replace => replace(path, &name, process, text),
        },
    };
    if let Err(error) = result {
        complain(name.as_bytes(), error);
    }
}

/// Not to wait for a reader of a pipe with a name, nor become anybody's terminal.
const FLAGS: i32 =
    libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
const MODE: u32 = 0o644;

/// How a file is written.
enum Way {
    Append,
    Overwrite,
    Replace,
}

fn way(path: &CStr, format: Format) -> Way {
    let name = path.to_bytes();
    if format != Format::OpenMetrics || name.starts_with(b"/dev/") || name.starts_with(b"/proc/") {
        return Way::Append;
    }
    match files::identity_of(path, false) {
        None => Way::Replace,
        Some(itself) if itself.is_regular => Way::Replace,
        Some(itself) if itself.is_link => match files::identity_of(path, true) {
            Some(target) if !target.is_regular => Way::Append,
            _ => Way::Overwrite,
        },
        Some(_) => Way::Append,
    }
}

fn write(path: &CStr, how: i32, text: &[u8]) -> Result<(), i32> {
    let fd = files::open(path, FLAGS | how, MODE)?;
    let written = files::write_all(fd, text);
    files::close(fd);
    if written { Ok(()) } else { Err(libc::EIO) }
}

fn replace(path: &CStr, name: &Name, process: u32, text: &[u8]) -> Result<(), i32> {
    let mut other = Name::new();
    other.add(name.as_bytes());
    other.add(b".");
    other.number(process);
    other.add(b".tmp");
    let mut room = [0; NAME];
    let draft = files::c_name(other.as_bytes(), &mut room).ok_or(libc::ENAMETOOLONG)?;
    // Somebody with our number has left it there.
    files::unlink(draft);
    let fd = files::open(draft, FLAGS | libc::O_EXCL | libc::O_NOFOLLOW, MODE)?;
    let written = files::write_all(fd, text);
    files::close(fd);
    if written && files::rename(draft, path) {
        return Ok(());
    }
    files::unlink(draft);
    Err(libc::EIO)
}

/// One line, once.
fn complain(name: &[u8], error: i32) {
    if !COMPLAINED.swap(true, Ordering::Relaxed) {
        Line::new()
            .text("stats_file=")
            .quoted(name, 100)
            .text(": cannot be written, error ")
            .digits(error.unsigned_abs() as usize, 10)
            .print();
    }
}

/// A name being put together; what does not fit makes it too long for a name.
struct Name {
    bytes: [u8; NAME],
    used: usize,
}

impl Name {
    fn new() -> Self {
        Self { bytes: [0; NAME], used: 0 }
    }

    fn add(&mut self, text: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.used..self.used + text.len()) {
            place.copy_from_slice(text);
            self.used += text.len();
        } else {
            self.used = NAME;
        }
    }

    fn number(&mut self, n: u32) {
        let mut digits = [0u8; 10];
        let (mut at, mut n) = (digits.len(), n);
        while at > 0 && (n > 0 || at == digits.len()) {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
        }
        self.add(digits.get(at..).unwrap_or_default());
    }

    /// `%p` becomes the process's number, `%%` a percent sign; all else stays.
    fn expand(&mut self, pattern: &[u8], process: u32) {
        let mut rest = pattern;
        while let Some((&byte, behind)) = rest.split_first() {
            let mut used = 1;
            match (byte, behind.first()) {
                (b'%', Some(b'p')) => self.number(process),
                (b'%', Some(b'%')) => self.add(b"%"),
                _ => {
                    self.add(&[byte]);
                    used = 0;
                }
            }
            rest = behind.get(used..).unwrap_or_default();
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pattern: &[u8], process: u32, expected: &[u8]) {
        let mut name = Name::new();
        name.expand(pattern, process);
        assert_eq!(name.as_bytes().escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    extern crate std;
    use std::string::ToString;

    #[test]
    fn the_process_stands_where_the_pattern_says() {
        expanded(b"/tmp/a.%p.json", 0, b"/tmp/a.0.json");
        expanded(b"%p%p", 4_294_967_295, b"42949672954294967295");
        expanded(b"100%%-%q-%", 7, b"100%-%q-%");
        expanded(b"", 7, b"");
    }

    #[test]
    fn a_name_of_numbers_only_is_not_cut_off() {
        let mut pattern = [b'%'; Text::MOST];
        pattern.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = b'p');
        let mut name = Name::new();
        name.expand(&pattern, 4_294_967_295);
        assert!(files::c_name(name.as_bytes(), &mut [0; NAME]).is_none(), "too long, and said so");
    }
}
