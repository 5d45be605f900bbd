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

    fn byte(mut self, byte: u8) -> Self {
        // One byte stays free for the end of the line.
        if let Some(slot) = self.bytes[..LENGTH - 1].get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte)
    }

    /// What somebody else wrote: at most `most` bytes of it, and nothing that a terminal would obey.
    pub(crate) fn quoted(self, text: &[u8], most: usize) -> Self {
        let shown = &text[..text.len().min(most)];
        let printable = |&byte: &u8| if matches!(byte, b' '..=b'~') { byte } else { b'?' };
        let line = shown.iter().map(printable).fold(self, Self::byte);
        if shown.len() < text.len() { line.text("...") } else { line }
    }

    pub(crate) fn digits(self, mut n: usize, base: usize) -> Self {
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
        digits[at..].iter().copied().fold(self, Self::byte)
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
