//! The transfer cache of one class: batches, last in first out.

use core::ptr;

use tiermalloc_size_class::Class;

use crate::Chain;

/// Batches that a class can hold. With 32 objects each, a thread that frees can run this far ahead
/// of one that allocates before spans are touched.
pub(crate) const BATCHES: usize = if cfg!(tiermalloc_loom) { 1 } else { 28 };
/// Bytes that a class may hold, however large the heap,
const MAX_BYTES: usize = 256 * 1024;
/// and however small,
const MIN_BYTES: usize = 32 * 1024;
/// and in between, the part of the heap.
const PART: usize = 256;

/// Bytes that each class may hold where so many stand behind the source of spans.
#[inline]
pub(crate) fn bound(reserved: usize) -> usize {
    (reserved / PART).clamp(MIN_BYTES, MAX_BYTES)
}

/// Whole batches of one class, by their first objects. Under its lock.
pub(crate) struct Transfer {
    used: u16,
    /// Least number of batches since the last plunder.
    low_water: u16,
    heads: [*mut u8; BATCHES],
}

// SAFETY: the objects belong to whoever holds the lock.
unsafe impl Send for Transfer {}

impl Transfer {
    pub(crate) const fn new() -> Self {
        Self { used: 0, low_water: 0, heads: [ptr::null_mut(); BATCHES] }
    }

    /// Takes a whole batch in, unless the cache is full or would hold more than `bound` bytes; one batch
    /// it takes in any case.
    #[inline]
    pub(crate) fn insert(&mut self, class: Class, batch: Chain, bound: usize) -> bool {
        debug_assert_eq!(batch.count, class.batch());
        let used = self.used as usize;
        let bytes = (used + 1) * batch.count * class.size();
        if used >= BATCHES || (bytes > bound && used > 0) {
            return false;
        }
        self.heads[used] = batch.head;
        self.used += 1;
        true
    }

    /// Gives the newest batch out.
    #[inline]
    pub(crate) fn remove(&mut self, class: Class) -> Option<Chain> {
        self.used = self.used.checked_sub(1)?;
        self.low_water = self.low_water.min(self.used);
        Some(Chain { head: self.heads[self.used as usize], count: class.batch() })
    }

    /// Starts a new period and says how many batches nobody has wanted in the last one.
    pub(crate) fn start_period(&mut self) -> usize {
        let idle = self.low_water;
        self.low_water = self.used;
        idle as usize
    }

    pub(crate) fn batches(&self) -> usize {
        self.used as usize
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_class_may_hold_a_part_of_the_heap_within_bounds() {
        let mib = 1 << 20;
        let bounds = [0, mib, 16 * mib, 32 * mib, 64 * mib, usize::MAX].map(bound);
        assert_eq!(bounds, [32, 32, 64, 128, 256, 256].map(|kib: usize| kib * 1024));
    }
}
