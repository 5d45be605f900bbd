//! The end of a program that is wrong: one line on standard error, then abort.
//!
//! No formatting machinery, no allocation, no lock: bytes into a buffer on the stack, one write(2).

use tiermalloc_size_class::Class;
use tiermalloc_sync::sys;
use tiermalloc_thread_cache::Misuse;

/// A line being put together.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; 256], used: 0 }.text("tiermalloc: ")
    }

    fn text(mut self, text: &str) -> Self {
        for &byte in text.as_bytes() {
            // One byte stays free for the end of the line.
            if let Some(slot) = self.bytes[..255].get_mut(self.used) {
                *slot = byte;
                self.used += 1;
            }
        }
        self
    }

    fn digits(self, mut n: usize, base: usize) -> Self {
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
        match core::str::from_utf8(&digits[at..]) {
            Ok(text) => self.text(text),
            Err(_) => self,
        }
    }

    fn pointer(self, address: usize) -> Self {
        self.text("0x").digits(address, 16)
    }

    fn class(self, class: Class) -> Self {
        self.text(" (size class of ").digits(class.size(), 10).text(" bytes)")
    }

    fn end(mut self) -> ! {
        self.bytes[self.used] = b'\n';
        sys::write_stderr(&self.bytes[..=self.used]);
        // SAFETY: abort has no preconditions.
        unsafe { libc::abort() }
    }
}

/// Ends a program whose mistake shows when objects come back.
#[cold]
#[inline(never)]
pub(crate) fn misuse(misuse: Misuse) -> ! {
    let line = Line::new().text("free(");
    match misuse {
        Misuse::DoubleFree(object, class) => {
            line.pointer(object as usize).text("): double free").class(class).end()
        }
        Misuse::NotAnObject(object, class) => line
            .pointer(object as usize)
            .text("): not the start of an allocation")
            .class(class)
            .end(),
        Misuse::Foreign(object, class) => line
            .pointer(object as usize)
            .text("): memory is corrupted, this is no object of its list")
            .class(class)
            .end(),
        _ => line.text("?): misuse").end(),
    }
}

/// Ends a program that passes `call` a pointer at which no allocation starts.
#[cold]
#[inline(never)]
pub(crate) fn not_an_allocation(call: &str, address: usize) -> ! {
    Line::new()
        .text(call)
        .text("(")
        .pointer(address)
        .text("): not the address of a live allocation")
        .end()
}
