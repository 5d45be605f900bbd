//! malloc_stats, mallinfo, mallinfo2, malloc_info, malloc_trim, mallopt: true figures.

use core::ffi::c_int;

use facade::{Stats, stats, trim};

/// glibc's `struct mallinfo2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// glibc's `struct mallinfo`: the same in 32 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mallinfo {
    fields: [c_int; 10],
}

/// What is free but taken from the system, in bytes.
fn free_bytes(stats: &Stats) -> usize {
    stats.thread_caches
        + stats.transfer_caches
        + stats.quarantine
        + stats.span_free
        + stats.free_dirty
        + stats.free_clean
}

/// The heap in glibc's terms: `arena` is what was taken from the system but for huge blocks, `hblkhd`
/// those, `uordblks` what the program holds of the arena, `fordblks` what it does not, `keepcost`
/// what `malloc_trim` could give back.
pub(crate) fn mallinfo2() -> Mallinfo2 {
    let s = stats();
    Mallinfo2 {
        arena: s.mapped - s.huge,
        hblks: s.huge_count,
        hblkhd: s.huge,
        fsmblks: s.thread_caches,
        uordblks: s.live - s.huge,
        fordblks: free_bytes(&s),
        keepcost: s.free_dirty,
        ..Mallinfo2::default()
    }
}

/// [`mallinfo2`] cut off at what 32 bits hold.
pub(crate) fn mallinfo() -> Mallinfo {
    let m = mallinfo2();
    let all = [
        m.arena, m.ordblks, m.smblks, m.hblks, m.hblkhd, m.usmblks, m.fsmblks, m.uordblks,
        m.fordblks, m.keepcost,
    ];
    Mallinfo { fields: all.map(|n| c_int::try_from(n).unwrap_or(c_int::MAX)) }
}

/// The lines of a report: what, and how many bytes.
fn lines(s: &Stats) -> [(&'static [u8], usize); 10] {
    [
        (b"in use", s.live),
        (b"of it huge", s.huge),
        (b"thread caches", s.thread_caches),
        (b"transfer caches", s.transfer_caches),
        (b"quarantine", s.quarantine),
        (b"free in spans", s.span_free),
        (b"free pages, dirty", s.free_dirty),
        (b"free pages, clean", s.free_clean),
        (b"metadata", s.metadata),
        (b"address space", s.mapped),
    ]
}

/// A small text in memory on the stack.
struct Text {
    bytes: [u8; 2048],
    used: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 2048], used: 0 }
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            if let Some(slot) = self.bytes.get_mut(self.used) {
                *slot = byte;
                self.used += 1;
            }
        }
        self
    }

    fn number(&mut self, mut n: usize, width: usize) -> &mut Self {
        let mut digits = [b' '; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        let from = at.min(digits.len() - width);
        self.add(&digits[from..])
    }
}

/// Prints what the heap holds to standard error.
pub(crate) fn malloc_stats() {
    let s = stats();
    let mut text = Text::new();
    text.add(b"tiermalloc: heap in bytes, ").number(s.threads, 1).add(b" thread caches\n");
    for (what, bytes) in lines(&s) {
        text.add(b"  ").add(what);
        (what.len()..20).for_each(|_| {
            text.add(b" ");
        });
        text.number(bytes, 16).add(b"\n");
    }
    // SAFETY: the text is readable for its length.
    unsafe { libc::write(2, text.bytes.as_ptr().cast(), text.used) };
}

/// Writes the heap's state as XML to a stream. `EINVAL` for options other than 0.
///
/// # Safety
/// `stream` is an open stream.
pub(crate) unsafe fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let s = stats();
    let mut text = Text::new();
    text.add(b"<malloc version=\"1\">\n<tiermalloc threads=\"").number(s.threads, 1).add(b"\">\n");
    for (what, bytes) in lines(&s) {
        text.add(b"<bytes of=\"").add(what).add(b"\" size=\"").number(bytes, 1).add(b"\"/>\n");
    }
    text.add(b"</tiermalloc>\n");
    text.add(b"<total type=\"rest\" count=\"0\" size=\"").number(free_bytes(&s), 1).add(b"\"/>\n");
    text.add(b"<total type=\"mmap\" count=\"").number(s.huge_count, 1);
    text.add(b"\" size=\"").number(s.huge, 1).add(b"\"/>\n");
    text.add(b"<system type=\"current\" size=\"").number(s.mapped, 1).add(b"\"/>\n</malloc>\n");
    // SAFETY: the text is readable for its length; the stream is the caller's.
    let written = unsafe { libc::fwrite(text.bytes.as_ptr().cast(), 1, text.used, stream) };
    if written == text.used { 0 } else { -1 }
}

/// Gives memory back to the system, but for `keep` bytes. 1 if any went back.
pub(crate) fn malloc_trim(keep: usize) -> c_int {
    (trim(keep) > 0) as c_int
}

/// Accepts glibc's parameters, none of which means anything here, as glibc does: 1.
pub(crate) fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}
