//! The transfer cache of one class: whole batches, last in first out.
//!
//! A batch that a thread frees is soon allocated again, by the same thread or by another one. Here it
//! waits as it is, in a list through the second words of first objects (or behind last ones, where objects have one word), so that there may be as
//! many as the heap has. Who writes there when it has been freed leads the next one who comes astray.
//! Who frees and who allocates may be the same thread, with another one doing so beside it: what one has had in its processor's
//! cache should not go to the other. Therefore there are some lists, the *lanes*, over which the threads are spread. Each takes what it has put
//! in, as long as there is any, then what others have; for all else the lanes are one.
//!
//! How much a class may hold goes by the heap behind it ([`bound`]). What the classes hold together is
//! memory that others cannot use: when a span is wanted and they hold much, some of it goes to its spans
//! first ([`CentralCache::make_way`](crate::CentralCache::make_way)).

use core::ptr;

use tiermalloc_size_class::{Class, class_of};

use crate::Chain;
use crate::lane::LANES;

/// Batches that a class may hold under the models.
const MODELLED: u32 = 1;
/// Bytes that a class may hold, however small the heap: one object of the largest, and a page.
const MIN_BYTES: usize = 264 * 1024;
/// The same for all classes together; under the models so little that one batch is much.
const MIN_OF_ALL: usize = if cfg!(tiermalloc_loom) { 1 } else { 1024 * 1024 };
const PART_OF_ALL: usize = 16;
/// The class whose objects have no second word.
const ONE_WORD: usize = match class_of(8, 8) {
    Some(class) if class.size() == 8 => class.id(),
    _ => panic!("the least class is of 8 bytes"),
};

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
    /// The newest batch of each lane, while there are any.
    newest: [*mut u8; LANES],
    /// The lane that a batch was put into last.
    last: usize,
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
            newest: [ptr::null_mut(); LANES],
            last: 0,
        }
    }

    /// Takes a whole batch of so many bytes into a lane, unless the cache would hold more than `bound` bytes; one batch
    /// it takes in any case.
    ///
    /// # Safety
    /// The batch owns its objects.
    #[inline(always)]
    pub(crate) unsafe fn insert(
        &mut self,
        class: Class,
        batch: Chain,
        lane: usize,
        bytes: usize,
        bound: usize,
    ) -> bool {
        debug_assert_eq!((batch.count, bytes), (class.batch(), class.batch() * class.size()));
        if self.used == 0 {
            // A batch whose first object was freed once more, and came in again, may have led to one that has left.
            self.newest = [ptr::null_mut(); LANES];
        } else if (self.used as usize + 1) * bytes > bound {
            return false;
        }
        if cfg!(tiermalloc_loom) && self.used == MODELLED {
            return false;
        }
        self.last = lane % LANES;
        let newest = &mut self.newest[self.last];
        // SAFETY: the batch is ours.
        unsafe { next_batch(class, batch.head).write(*newest) };
        *newest = batch.head;
        self.used += 1;
        self.inserted += 1;
        true
    }

    /// Gives the newest batch of a lane out, or of the lane that a batch was put into last, or one of another lane.
    #[inline(always)]
    pub(crate) fn remove(&mut self, class: Class, lane: usize) -> Option<Chain> {
        if self.used == 0 {
            return None;
        }
        let mut lane = lane % LANES;
        let mut head = self.newest[lane];
        if head.is_null() {
            lane = self.last % LANES;
            head = self.newest[lane];
            if head.is_null() {
                lane = self.other_lane()?;
                head = self.newest[lane];
            }
        }
        self.used -= 1;
        self.low_water = self.low_water.min(self.used);
        // SAFETY: a batch on the list, linked when it came.
        unsafe {
            let next = next_batch(class, head);
            let following = next.read();
            // What is no address was written when the object had been freed once more.
            self.newest[lane] = match following as usize % align_of::<*mut u8>() {
                0 => following,
                _ => ptr::null_mut(),
            };
            if class.id() == ONE_WORD {
                next.write(ptr::null_mut());
            }
        }
        Some(Chain { head, count: class.batch() })
    }

    /// One that has a batch: one of them, unless a program has written to what it has freed.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn other_lane(&self) -> Option<usize> {
        self.newest.iter().position(|newest| !newest.is_null())
    }

    /// Believes that nothing is there, for nothing has been found.
    #[cold]
    pub(crate) fn forget(&mut self) {
        (self.used, self.low_water) = (0, 0);
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

/// Where a batch that waits names the next one: in the second word of its first object, or behind its last one where objects have one word.
///
/// # Safety
/// The batch from `head` on owns its objects, and ends with a null or such a name.
#[inline]
unsafe fn next_batch(class: Class, head: *mut u8) -> *mut *mut u8 {
    match class.id() != ONE_WORD {
        true => head.wrapping_add(size_of::<*mut u8>()).cast(),
        // SAFETY: passed on to the caller.
        false => unsafe { last_link(class, head) },
    }
}

/// For one class of 208, out of the way of the others.
///
/// # Safety
/// As for [`next_batch`].
#[cold]
#[inline(never)]
unsafe fn last_link(class: Class, head: *mut u8) -> *mut *mut u8 {
    let mut last = head;
    for _ in 1..class.batch() {
        // SAFETY: passed on to the caller.
        let next = unsafe { Chain::next(last) };
        if next.is_null() {
            // It is shorter by now: its objects have been freed once more.
            break;
        }
        last = next;
    }
    last.cast()
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
