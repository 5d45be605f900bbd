//! What freed objects are filled with, and whether they still are.

use crate::config;

/// A byte that freed objects are full of.
#[derive(Clone, Copy)]
pub(super) struct Filling(u8);

/// As a pointer, eight of these are no address of any process: who follows one from freed memory ends
/// there. As a number they are large and negative.
const DEAD_BYTES: u8 = 0xdb;

impl Filling {
    /// As the configuration says.
    pub(super) fn chosen() -> Self {
        Self(if config::get().zero_on_free { 0 } else { DEAD_BYTES })
    }

    /// # Safety
    /// `bytes` bytes at `start` are the caller's.
    pub(super) unsafe fn fill(self, start: *mut u8, bytes: usize) {
        // SAFETY: passed on to the caller.
        unsafe { start.write_bytes(self.0, bytes) };
    }

    /// The offset of the first byte that is another one.
    ///
    /// # Safety
    /// `bytes` bytes at `start`, whole words, are the caller's to read.
    pub(super) unsafe fn first_other(self, start: *const u8, bytes: usize) -> Option<usize> {
        debug_assert_eq!((start as usize | bytes) % 8, 0);
        let word = u64::from_ne_bytes([self.0; 8]);
        let words = start.cast::<u64>();
        // SAFETY: passed on to the caller.
        let at = (0..bytes / 8).find(|&at| unsafe { words.add(at).read() } != word)? * 8;
        // SAFETY: passed on to the caller.
        (at..bytes).find(|&at| unsafe { start.add(at).read() } != self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found_where_it_is() {
        for filling in [Filling(0), Filling(DEAD_BYTES)] {
            let mut words = [0u64; 9];
            let start = words.as_mut_ptr().cast::<u8>();
            // SAFETY: 72 bytes of our own.
            unsafe {
                filling.fill(start, 72);
                assert_eq!(filling.first_other(start, 72), None);
                for at in 0..72 {
                    start.add(at).write(1);
                    assert_eq!(filling.first_other(start, 72), Some(at));
                    assert_eq!(filling.first_other(start, at & !7), None);
                    filling.fill(start.add(at), 1);
                }
            }
        }
    }
}
