//! One line on standard error, without formatting machinery, allocation or lock: bytes into a buffer
//! on the stack, one write(2).

use tiermalloc_size_class::Class;
use tiermalloc_sync::sys;

/// Bytes of a line, its end included.
const LENGTH: usize = 256;

/// A line being put together; what does not fit is cut off.
pub(crate) struct Line {
    bytes: [u8; LENGTH],
    used: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self::empty().text("tiermalloc: ")
    }

    pub(crate) fn empty() -> Self {
        Self { bytes: [0; LENGTH], used: 0 }
    }

    /// What has been put together; lines are ASCII.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.used]).unwrap_or_default()
    }

    /// Out of line: messages are long, and seldom.
    #[inline(never)]
    fn push(&mut self, byte: u8) {
        // One byte stays free for the end of the line.
        if let Some(slot) = self.bytes[..LENGTH - 1].get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
    }

    #[inline(never)]
    fn push_all(&mut self, text: &[u8]) {
        text.iter().for_each(|&byte| self.push(byte));
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.push_all(text.as_bytes());
        self
    }

    /// What somebody else wrote: at most `most` bytes of it, and nothing that a terminal would obey.
    pub(crate) fn quoted(mut self, text: &[u8], most: usize) -> Self {
        let shown = &text[..text.len().min(most)];
        for &byte in shown {
            self.push(if matches!(byte, b' '..=b'~') { byte } else { b'?' });
        }
        if shown.len() < text.len() { self.text("...") } else { self }
    }

    pub(crate) fn digits(mut self, mut n: usize, base: usize) -> Self {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[n % base];
            n /= base;
            if n == 0 {
                break;
            }
        }
        self.push_all(&digits[at..]);
        self
    }

    pub(crate) fn pointer(self, address: usize) -> Self {
        self.text("0x").digits(address, 16)
    }

    pub(crate) fn class(self, class: Class) -> Self {
        self.text(" (size class of ").digits(class.size(), 10).text(" bytes)")
    }

    pub(crate) fn print(mut self) {
        self.bytes[self.used] = b'\n';
        sys::write_stderr(&self.bytes[..=self.used]);
    }

    /// The last line of a program.
    pub(crate) fn abort(self) -> ! {
        self.print();
        if crate::background::is_caller() {
            // The thread in the background has no thread-local variables, and `abort` looks for some.
            sys::signal_process(libc::SIGABRT);
            loop {
                sys::sleep(1000);
            }
        }
        // SAFETY: abort has no preconditions.
        unsafe { libc::abort() }
    }
}
