//! Patterns: what a block holds is decided by its stamp, at each of its words differently.

use std::ops::Range;

/// Up to here every byte of a block is filled.
const FULL: usize = 1 << 20;
/// Beyond it both ends are, up to this far in,
const END: usize = 64 << 10;
/// and so many bytes
const SPOT: usize = 64;
/// of each stretch of this length.
const STRETCH: usize = 32 << 10;

/// The parts of a block of `length` bytes that are filled. Each begins at a multiple of 8.
fn parts(length: usize) -> impl Iterator<Item = Range<usize>> {
    let (head, tail) = if length <= FULL { (length, length) } else { (END, (length - END) & !7) };
    let spots = (head..tail).step_by(STRETCH).map(move |at| at..(at + SPOT).min(tail));
    std::iter::once(0..head).chain(spots).chain(std::iter::once(tail..length))
}

/// The word at offset `at`, a multiple of 8.
#[inline]
fn word(stamp: u64, at: usize) -> u64 {
    stamp.wrapping_add((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The byte at offset `at`: of the word there.
fn byte(stamp: u64, at: usize) -> u8 {
    word(stamp, at & !7).to_ne_bytes()[at & 7]
}

/// Fills a block.
///
/// # Safety
/// `block` is writable for `length` bytes and aligned to 8.
pub unsafe fn fill(block: *mut u8, length: usize, stamp: u64) {
    for part in parts(length) {
        let whole = part.len() / 8;
        // SAFETY: within the block, and at a multiple of 8.
        let words = unsafe { std::slice::from_raw_parts_mut(block.add(part.start).cast(), whole) };
        for (n, slot) in words.iter_mut().enumerate() {
            *slot = word(stamp, part.start + n * 8);
        }
        for at in part.start + whole * 8..part.end {
            // SAFETY: within the block.
            unsafe { block.add(at).write(byte(stamp, at)) };
        }
    }
}

/// Whether the first `kept` bytes of a block of `length` bytes are what [`fill`] made of them.
///
/// # Safety
/// `block` is readable for `kept` bytes and aligned to 8.
pub unsafe fn holds(block: *const u8, length: usize, kept: usize, stamp: u64) -> bool {
    parts(length).filter(|part| part.start < kept).all(|part| {
        let part = part.start..part.end.min(kept);
        let whole = part.len() / 8;
        // SAFETY: within the block, and at a multiple of 8.
        let words =
            unsafe { std::slice::from_raw_parts(block.add(part.start).cast::<u64>(), whole) };
        let wrong = words
            .iter()
            .enumerate()
            .fold(0, |wrong, (n, held)| wrong | (held ^ word(stamp, part.start + n * 8)));
        // SAFETY: within the block.
        let held = |at: usize| unsafe { block.add(at).read() };
        wrong == 0 && (part.start + whole * 8..part.end).all(|at| held(at) == byte(stamp, at))
    })
}

/// Whether a block is nothing but zero bytes.
///
/// # Safety
/// `block` is readable for `length` bytes.
pub unsafe fn is_zero(block: *const u8, length: usize) -> bool {
    // SAFETY: passed on to the caller; any bytes are words.
    let (head, words, tail) =
        unsafe { std::slice::from_raw_parts(block, length).align_to::<u64>() };
    head.iter().chain(tail).all(|&byte| byte == 0) && words.iter().fold(0, |all, w| all | w) == 0
}
