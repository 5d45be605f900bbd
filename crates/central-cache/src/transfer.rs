//! The transfer cache of one class: whole batches, last in first out.
//!
//! A batch that a thread frees is soon allocated again, by the same thread or by another one. Here it
//! waits as it is: taking it in and giving it out touches its first object at most. The first batches
//! are kept by their addresses alone, all further ones in a list through the second words of their first
//! objects, so that there may be as many as the heap has.
//!
//! How much a class may hold goes by the heap behind it ([`bound`]). What the classes hold together is
//! memory that others cannot use: when a span is wanted and they hold much, some of it goes to its spans
//! first ([`CentralCache::make_way`](crate::CentralCache::make_way)).

use core::ptr;

use tiermalloc_size_class::Class;

use crate::Chain;

/// Batches that are kept by their addresses; all that a class of 8 bytes, whose objects have no second
/// word, can hold.
pub(crate) const BATCHES: usize = if cfg!(tiermalloc_loom) { 1 } else { 25 };
/// Bytes that a class may hold, however small the heap: one object of the largest, and a page.
const MIN_BYTES: usize = 264 * 1024;
/// The same for all classes together; under the models so little that one batch is much.
const MIN_OF_ALL: usize = if cfg!(tiermalloc_loom) { 1 } else { 1024 * 1024 };
const PART_OF_ALL: usize = 16;

/// Bytes that each class may hold where so many stand behind the source of spans: all of them. What is freed in long runs
/// comes back in long runs, and others get what they need of it in good time.
#[inline]
pub(crate) fn bound(reserved: usize) -> usize {
    reserved.max(MIN_BYTES)
}

/// Bytes that all classes may hold together while others have to take fresh spans.
#[inline]
pub(crate) fn bound_of_all(reserved: usize) -> usize {
    (reserved / PART_OF_ALL).max(MIN_OF_ALL)
}

/// What of that is a shard's, where there are so many as the binary logarithm says.
#[inline]
pub(crate) fn share_of_all(bound: usize, log: u32) -> usize {
    (bound >> log).max(MIN_OF_ALL / 4)
}

/// Whole batches of one class. Under its lock.
pub(crate) struct Transfer {
    used: u32,
    /// Least number of batches since the last plunder.
    low_water: u32,
    /// Batches taken in since the start, and those of them that went on to the spans.
    pub(crate) inserted: u64,
    pub(crate) drained: u64,
    heads: [*mut u8; BATCHES],
    /// The newest of those that `heads` has no room for.
    rest: *mut u8,
}

// SAFETY: the objects belong to whoever holds the lock.
unsafe impl Send for Transfer {}

impl Transfer {
    pub(crate) const fn new() -> Self {
        Self {
            used: 0,
            low_water: 0,
            inserted: 0,
            drained: 0,
            heads: [ptr::null_mut(); BATCHES],
            rest: ptr::null_mut(),
        }
    }

    /// Takes a whole batch in, unless the cache is full or would hold more than `bound` bytes; one batch
    /// it takes in any case.
    ///
    /// # Safety
    /// The batch owns its objects.
    #[inline]
    pub(crate) unsafe fn insert(&mut self, class: Class, batch: Chain, bound: usize) -> bool {
        debug_assert_eq!(batch.count, class.batch());
        let used = self.used as usize;
        let bytes = (used + 1) * batch.count * class.size();
        if bytes > bound && used > 0 {
            return false;
        }
        if used < BATCHES {
            self.heads[used] = batch.head;
        } else if class.size() >= 16 && !cfg!(tiermalloc_loom) {
            // SAFETY: the object is ours, and has a second word.
            unsafe { second_word(batch.head).write(self.rest) };
            self.rest = batch.head;
        } else {
            return false;
        }
        self.used += 1;
        self.inserted += 1;
        true
    }

    /// Gives the newest batch out.
    #[inline]
    pub(crate) fn remove(&mut self, class: Class) -> Option<Chain> {
        self.used = self.used.checked_sub(1)?;
        self.low_water = self.low_water.min(self.used);
        let head = if self.used as usize >= BATCHES {
            let newest = self.rest;
            // SAFETY: a batch behind `heads` is on the list, linked through its second word.
            self.rest = unsafe { second_word(newest).read() };
            newest
        } else {
            self.heads[self.used as usize]
        };
        Some(Chain { head, count: class.batch() })
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

/// The second word of a free object of at least 16 bytes.
#[inline]
fn second_word(object: *mut u8) -> *mut *mut u8 {
    object.wrapping_add(size_of::<*mut u8>()).cast()
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    #[test]
    fn a_class_may_hold_the_heap_or_264_kib() {
        let heaps = [0, 200 * KIB, 264 * KIB, 264 * KIB + 1, 80 * MIB];
        let bounds = [264 * KIB, 264 * KIB, 264 * KIB, 264 * KIB + 1, 80 * MIB];
        assert_eq!(heaps.map(bound), bounds);
    }

    #[test]
    fn all_classes_together_hold_much_from_a_16th_of_the_heap_or_1_mib_on() {
        let heaps = [0, MIB, 16 * MIB, 16 * MIB + 16, 80 * MIB];
        assert_eq!(heaps.map(bound_of_all), [MIB, MIB, MIB, MIB + 1, 5 * MIB]);
    }
}
