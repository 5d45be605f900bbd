//! malloc_stats, mallinfo, mallinfo2, malloc_info, malloc_trim, mallopt: true figures. In the pool `system` they are the
//! C library's own, as allocations are.

use core::ffi::c_int;

use facade::config::Format;
use facade::raw::system_function;
use facade::{Stats, stats, trim, with_snapshot, write_stats};

use crate::xml;

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
pub(crate) fn free_bytes(stats: &Stats) -> usize {
    stats.thread_caches
        + stats.parked_caches
        + stats.transfer_caches
        + stats.quarantine
        + stats.span_free
        + stats.free_dirty
        + stats.free_clean
}

/// The C library's own function of a name and a type, where that library serves.
macro_rules! of_system {
    ($name:literal, $type:ty) => {
        // SAFETY: functions of these names have these types in glibc, the only library that is looked into.
        system_function($name).map(|address| unsafe { core::mem::transmute::<usize, $type>(address) })
    };
}

/// The heap in glibc's terms: `arena` is what was taken from the system but for huge blocks, `hblkhd`
/// those, `uordblks` what the program holds of the arena, `fordblks` what it does not, `keepcost`
/// what `malloc_trim` could give back.
pub(crate) fn mallinfo2() -> Mallinfo2 {
    // glibc before 2.33 has only the narrow one, which nobody asks for by this name there.
    if let Some(theirs) = of_system!(b"mallinfo2", extern "C" fn() -> Mallinfo2) {
        return theirs();
    }
    let s = stats();
    Mallinfo2 {
        arena: s.mapped - s.huge,
        // Runs of free memory are not counted; spans that may have some are.
        ordblks: s.spans,
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
    if let Some(theirs) = of_system!(b"mallinfo", extern "C" fn() -> Mallinfo) {
        return theirs();
    }
    let m = mallinfo2();
    let all = [
        m.arena, m.ordblks, m.smblks, m.hblks, m.hblkhd, m.usmblks, m.fsmblks, m.uordblks,
        m.fordblks, m.keepcost,
    ];
    Mallinfo { fields: all.map(|n| c_int::try_from(n).unwrap_or(c_int::MAX)) }
}

/// Prints what the heap holds to standard error.
pub(crate) fn malloc_stats() {
    if let Some(theirs) = of_system!(b"malloc_stats", extern "C" fn()) {
        return theirs();
    }
    write_stats(2, Format::Text);
}

/// Writes the heap's state as XML to a stream. `EINVAL` for options other than 0, `ENOMEM` without memory
/// for a snapshot.
///
/// # Safety
/// `stream` is an open stream.
pub(crate) unsafe fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    type Info = unsafe extern "C" fn(c_int, *mut libc::FILE) -> c_int;
    if let Some(theirs) = of_system!(b"malloc_info", Info) {
        // SAFETY: passed on to the caller.
        return unsafe { theirs(options, stream) };
    }
    if options != 0 {
        return libc::EINVAL;
    }
    let mut good = true;
    let mut sink = |text: &[u8]| {
        // SAFETY: the text is readable for its length; the stream is the caller's.
        good &= unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream) } == text.len();
    };
    match with_snapshot(|snapshot| xml::write(snapshot, &mut sink)) {
        None => libc::ENOMEM,
        Some(()) if good => 0,
        Some(()) => -1,
    }
}

/// Gives memory back to the system, but for `keep` bytes. 1 if any went back.
pub(crate) fn malloc_trim(keep: usize) -> c_int {
    (trim(keep) > 0) as c_int
}

/// Accepts glibc's parameters, none of which means anything here, as glibc does: 1.
pub(crate) fn mallopt(parameter: c_int, value: c_int) -> c_int {
    if let Some(theirs) = of_system!(b"mallopt", extern "C" fn(c_int, c_int) -> c_int) {
        return theirs(parameter, value);
    }
    1
}
