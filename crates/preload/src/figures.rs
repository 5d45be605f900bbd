//! What `include/tiermalloc.h` offers of statistics and configuration.

use core::ffi::{CStr, c_char, c_int, c_void};

use facade::config::{Format, KEYS, Key, Kind, Value};
use facade::{CLASS_FIELDS, ClassStats, TOTAL_FIELDS, with_snapshot, write_stats};

use crate::xml::number;

/// The version, as a C string.
pub(crate) fn version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Fills a structure of numbers in the order of [`TOTAL_FIELDS`]: as many as fit into `size` bytes, and zeros
/// behind them.
///
/// # Safety
/// `out` is null or writable for `size` bytes.
pub(crate) unsafe fn stats(out: *mut u64, size: usize) -> c_int {
    if out.is_null() || size % size_of::<u64>() != 0 {
        return libc::EINVAL;
    }
    let stats = facade::stats();
    let figures = TOTAL_FIELDS.iter().map(|field| (field.get)(&stats));
    let all = figures.chain(core::iter::repeat(0));
    for (place, figure) in (0..size / size_of::<u64>()).zip(all) {
        // SAFETY: the caller's word for so many numbers, aligned as C aligns them.
        unsafe { out.add(place).write(figure) };
    }
    0
}

/// What is called for each class.
pub(crate) type Each = unsafe extern "C" fn(*const u64, usize, *mut c_void);

/// Numbers of a class in C's structure.
const OF_CLASS: usize = 4 + CLASS_FIELDS.len();

/// C's structure for a class.
fn class_figures(class: &ClassStats) -> [u64; OF_CLASS] {
    let mut figures = [0; OF_CLASS];
    let shape = [class.size, class.objects_per_span, class.pages_per_span, class.batch];
    let first = shape.iter().map(|&n| n as u64);
    let rest = CLASS_FIELDS.iter().map(|field| (field.get)(class));
    figures.iter_mut().zip(first.chain(rest)).for_each(|(place, figure)| *place = figure);
    figures
}

/// Calls `each` for every class that was ever used, without a lock.
///
/// # Safety
/// `each` may be called with `data`.
pub(crate) unsafe fn each_class(each: Option<Each>, data: *mut c_void) -> c_int {
    let Some(each) = each else { return libc::EINVAL };
    let done = with_snapshot(|snapshot| {
        for class in snapshot.classes().filter(|class| class.is_used()) {
            let figures = class_figures(class);
            // SAFETY: the caller's word.
            unsafe { each(figures.as_ptr(), size_of_val(&figures), data) };
        }
    });
    if done.is_some() { 0 } else { libc::ENOMEM }
}

/// Writes statistics in one of the header's formats.
pub(crate) fn stats_write(fd: c_int, format: c_int) -> c_int {
    let format = match format {
        0 => Format::Text,
        1 => Format::Json,
        2 => Format::OpenMetrics,
        _ => return libc::EINVAL,
    };
    if write_stats(fd, format) { 0 } else { libc::EIO }
}

/// The value of a key, as a user would write it.
///
/// # Safety
/// `key` is null or a C string, `value` null or writable for `size` bytes.
pub(crate) unsafe fn config_get(key: *const c_char, value: *mut c_char, size: usize) -> c_int {
    if key.is_null() {
        return -1;
    }
    // SAFETY: the caller's word.
    let name = unsafe { CStr::from_ptr(key) }.to_bytes();
    let Some(key) = KEYS.iter().find(|key| key.name.as_bytes() == name) else { return -1 };
    let mut length = 0;
    let room = if value.is_null() { 0 } else { size };
    each_byte(key, &mut |byte| {
        if length + 1 < room {
            // SAFETY: within the caller's `size` bytes.
            unsafe { value.add(length).write(byte as c_char) };
        }
        length += 1;
    });
    if room > 0 {
        // SAFETY: as above.
        unsafe { value.add(length.min(room - 1)).write(0) };
    }
    length as c_int
}

/// The value in force of a key, byte by byte.
fn each_byte(key: &Key, each: &mut dyn FnMut(u8)) {
    let mut text = |text: &[u8]| text.iter().for_each(|&byte| each(byte));
    match ((key.get)(&facade::config()), key.kind) {
        (Value::Choice(word), Kind::Choice(words)) => {
            text(words.get(word).map_or(b"", |word| word.as_bytes()));
        }
        (Value::Flags(0), _) => text(b"off"),
        (Value::Flags(bits), Kind::Flags(words)) => {
            let mut joint: &[u8] = b"";
            for (bit, word) in words.iter().enumerate() {
                if bits >> bit & 1 != 0 {
                    text(joint);
                    text(word.as_bytes());
                    joint = b"+";
                }
            }
        }
        (Value::Switch(on), _) => text(if on { b"true" } else { b"false" }),
        (Value::Bytes(0), Kind::Bytes { none: true, .. }) => text(b"none"),
        (Value::Bytes(bytes), _) => number(bytes as u64, &mut text),
        (Value::Duration(time), Kind::Duration { none: true, .. }) if time.ms() == 0 => {
            text(b"none");
        }
        (Value::Duration(time), _) => {
            number(time.ms(), &mut text);
            text(b"ms");
        }
        (Value::Text(words), _) => text(words.as_bytes()),
        _ => {}
    }
}
