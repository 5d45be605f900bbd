//! Freed objects wait here before they may be handed out again, first in, first out.
//!
//! In shards by address, each with a lock, a ring and a set of the addresses in the ring, so that an object
//! that is freed once more while it waits is seen exactly. The set is a table with linear probing
//! (Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R).

use tiermalloc_size_class::Class;
use tiermalloc_sync::{
    CachePadded, Mutex, Patience, RawFutexMutex, force_unlock, leak_locked, lock_within,
};

const SHARDS: usize = 16;
/// Objects that a shard holds, however small they are.
const PLACES: usize = 1024;
/// Length of the table of a shard: at most half of it is ever in use.
const SLOTS: usize = 2 * PLACES;

/// The object is in the quarantine already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice;

/// What leaves the quarantine.
pub(super) type Left = Option<(*mut u8, Class)>;

pub(super) struct Quarantine {
    shards: [CachePadded<Mutex<RawFutexMutex, Shard<PLACES, SLOTS>>>; SHARDS],
}

impl Quarantine {
    pub(super) const fn new() -> Self {
        Self { shards: [const { CachePadded::new(Mutex::new(Shard::new())) }; SHARDS] }
    }

    fn shard(&self, object: *mut u8) -> &Mutex<RawFutexMutex, Shard<PLACES, SLOTS>> {
        &self.shards[scattered(object as usize) % SHARDS]
    }

    /// Puts an object in. Returns one that has to leave for it, if the quarantine as a whole may hold
    /// `most` bytes; there may be more of these, for [`overdue`](Self::overdue) to tell.
    pub(super) fn hold(&self, object: *mut u8, class: Class, most: usize) -> Result<Left, Twice> {
        let mut shard = self.shard(object).lock();
        // Room for it first.
        let left = if shard.len == PLACES { shard.pop() } else { None };
        shard.push(object as usize, class)?;
        Ok(left.or_else(|| shard.overdue(most / SHARDS)))
    }

    /// The oldest object beside `object`, if there are too many bytes.
    pub(super) fn overdue(&self, object: *mut u8, most: usize) -> Left {
        self.shard(object).lock().overdue(most / SHARDS)
    }

    /// Any object; none when the quarantine is empty.
    pub(super) fn oldest(&self) -> Left {
        self.shards.iter().find_map(|shard| shard.lock().pop())
    }

    /// Every object but those of a shard that is locked: the lock's owner may be what a signal
    /// interrupted in this very thread, and never come back.
    pub(super) fn for_each_at_rest(&self, mut each: impl FnMut(*mut u8, Class)) {
        for shard in self.shards.iter().filter_map(|shard| shard.try_lock()) {
            shard.for_each(&mut each);
        }
    }

    /// Calls `each` for the class of every object; `false`: not of all, because somebody holds a lock for
    /// longer than the caller has patience.
    pub(super) fn classes(&self, patience: &mut Patience, mut each: impl FnMut(Class)) -> bool {
        self.shards.iter().all(|shard| match lock_within(shard, patience) {
            Some(shard) => {
                shard.for_each(&mut |_, class| each(class));
                true
            }
            None => false,
        })
    }

    pub(super) fn lock_for_fork(&self) {
        self.shards.iter().for_each(|shard| leak_locked(shard));
    }

    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub(super) unsafe fn unlock_after_fork(&self) {
        for shard in &self.shards {
            // SAFETY: passed on to the caller.
            unsafe { force_unlock(shard) };
        }
    }
}

/// A ring of `PLACES` objects, and a set of their addresses with `SLOTS` slots (a power of two).
struct Shard<const PLACES: usize, const SLOTS: usize> {
    ring: [usize; PLACES],
    /// Ids of the objects' classes.
    classes: [u8; PLACES],
    first: usize,
    len: usize,
    bytes: usize,
    /// Addresses, 0 where there is none.
    set: [usize; SLOTS],
}

/// Fibonacci hashing (Knuth, 6.4): the upper half of a product, for the lower bits of addresses are all
/// alike.
fn scattered(address: usize) -> usize {
    ((address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

impl<const PLACES: usize, const SLOTS: usize> Shard<PLACES, SLOTS> {
    const fn new() -> Self {
        assert!(SLOTS.is_power_of_two() && SLOTS > PLACES);
        Self {
            ring: [0; PLACES],
            classes: [0; PLACES],
            first: 0,
            len: 0,
            bytes: 0,
            set: [0; SLOTS],
        }
    }

    /// Where in the set a search for `address` begins.
    fn home(address: usize) -> usize {
        // Not the bits that chose the shard.
        (scattered(address) >> 4) % SLOTS
    }

    /// There is a place.
    fn push(&mut self, address: usize, class: Class) -> Result<(), Twice> {
        let mut slot = Self::home(address);
        while self.set[slot] != 0 {
            if self.set[slot] == address {
                return Err(Twice);
            }
            slot = (slot + 1) % SLOTS;
        }
        self.set[slot] = address;
        let place = (self.first + self.len) % PLACES;
        self.ring[place] = address;
        self.classes[place] = class.id() as u8;
        self.len += 1;
        self.bytes += class.size();
        Ok(())
    }

    /// The oldest.
    fn pop(&mut self) -> Left {
        self.len = self.len.checked_sub(1)?;
        let address = self.ring[self.first];
        let class = Class::from_id(self.classes[self.first] as usize)?;
        self.first = (self.first + 1) % PLACES;
        self.bytes -= class.size();
        self.forget(address);
        Some((address as *mut u8, class))
    }

    fn overdue(&mut self, most: usize) -> Left {
        if self.bytes > most { self.pop() } else { None }
    }

    /// Takes an address out of the set; what stands behind it moves up if its search would pass here.
    fn forget(&mut self, address: usize) {
        let mut hole = Self::home(address);
        while self.set[hole] != address {
            if self.set[hole] == 0 {
                return;
            }
            hole = (hole + 1) % SLOTS;
        }
        let mut next = hole;
        loop {
            next = (next + 1) % SLOTS;
            let other = self.set[next];
            if other == 0 {
                break;
            }
            let walked = next.wrapping_sub(Self::home(other)) % SLOTS;
            if walked >= next.wrapping_sub(hole) % SLOTS {
                self.set[hole] = other;
                hole = next;
            }
        }
        self.set[hole] = 0;
    }

    fn for_each(&self, each: &mut impl FnMut(*mut u8, Class)) {
        for place in (0..self.len).map(|n| (self.first + n) % PLACES) {
            if let Some(class) = Class::from_id(self.classes[place] as usize) {
                each(self.ring[place] as *mut u8, class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    type Small = Shard<13, 16>;

    fn class(n: usize) -> Class {
        Class::from_id(n % 8 + 1).unwrap()
    }

    proptest! {
        /// A crowded set, so that searches run into each other and around the end.
        #[test]
        fn a_shard_is_a_queue_that_takes_no_address_twice(
            steps in prop::collection::vec((0usize..4, 1usize..24), 1..400),
        ) {
            let mut shard = Small::new();
            let mut model: VecDeque<(usize, Class)> = VecDeque::new();
            for (step, n) in steps {
                let address = n * 16;
                if step == 0 || model.len() == 13 {
                    let oldest = model.pop_front().map(|(at, class)| (at as *mut u8, class));
                    prop_assert_eq!(shard.pop(), oldest);
                } else {
                    let twice = model.iter().any(|&(at, _)| at == address);
                    prop_assert_eq!(shard.push(address, class(n)).is_err(), twice);
                    if !twice {
                        model.push_back((address, class(n)));
                    }
                }
                prop_assert_eq!(shard.bytes, model.iter().map(|(_, c)| c.size()).sum::<usize>());
                let mut seen = VecDeque::new();
                shard.for_each(&mut |at, class| seen.push_back((at as usize, class)));
                prop_assert_eq!(&seen, &model);
            }
        }
    }

    #[test]
    fn too_many_bytes_leave_oldest_first() {
        let mut shard = Small::new();
        for n in 1..=10 {
            shard.push(n * 16, Class::from_id(1).unwrap()).unwrap();
        }
        assert_eq!(shard.overdue(160), None);
        assert_eq!(shard.overdue(144).map(|(at, _)| at as usize), Some(16));
        assert_eq!(shard.overdue(144), None);
    }
}
