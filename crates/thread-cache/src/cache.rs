//! The cache's layout and its fast paths.

use core::cell::Cell;
use core::ptr;

#[cfg(doc)]
use tiermalloc_central_cache::CentralCache;
use tiermalloc_central_cache::Chain;
use tiermalloc_size_class::{Class, SLOTS};
use tiermalloc_sync::atomic::{AtomicUsize, Ordering};
use tiermalloc_sync::prefetch;

use crate::Budget;

/// One thread's cache; see the crate's documentation.
///
/// ```text
///   heads [209 x 8]  room [209 x 4] | capacity [209 x 4]  aside [209 x 8]  aside_len, overflows ...
///   --------- fast paths ---------- | ---------------- slow paths ------------------------------
/// ```
///
/// Heads and rooms are arrays of their own so that a bin is found by scaled addressing, without
/// arithmetic. All zero is the empty cache (T3). About 6 KiB: one span of one page.
#[repr(C)]
pub struct ThreadCache {
    pub(crate) heads: [Cell<*mut u8>; SLOTS],
    pub(crate) room: [Cell<u32>; SLOTS],
    pub(crate) capacity: [Cell<u32>; SLOTS],
    /// Objects that were in the list at the last scavenge and have not been needed since.
    pub(crate) aside: [Cell<*mut u8>; SLOTS],
    pub(crate) aside_len: [Cell<u32>; SLOTS],
    /// Overflows since the last refill.
    pub(crate) overflows: [Cell<u8>; SLOTS],
    /// Bytes that the bins may hold: the cache's floor, and what was claimed from the budget.
    pub(crate) limit: Cell<usize>,
    /// What of the limit cannot be asked back.
    pub(crate) floor: Cell<usize>,
    /// Bytes of all capacities (T2).
    pub(crate) used: Cell<usize>,
    /// Slow steps until the next look, and looks until the next scavenge.
    pub(crate) until_look: Cell<u32>,
    pub(crate) until_scavenge: Cell<u32>,
    /// The number of the last look, and how many in a row with none of another cache in between.
    pub(crate) last_look: Cell<u32>,
    pub(crate) lonely_looks: Cell<u32>,
    /// The bin from which unused room is taken next.
    pub(crate) cursor: Cell<u32>,
    /// Bytes that other threads ask for. The only field that they write.
    pub(crate) wanted_back: AtomicUsize,
    /// Number of the thread, for people; 0 when nobody has said.
    pub(crate) owner: Cell<u32>,
    /// The number by which its shard of the central cache is found.
    pub(crate) place: Cell<u32>,
    /// Since the cache was made or handed on: refills from the source, and chains sent to it.
    pub(crate) refills: Cell<u64>,
    pub(crate) flushes: Cell<u64>,
    /// Links of the registry, under its lock.
    pub(crate) previous: Cell<*mut ThreadCache>,
    pub(crate) next: Cell<*mut ThreadCache>,
    /// Calls on the source for each class while it had no capacity, about: what earns it some.
    pub(crate) calls: [Cell<u8>; SLOTS],
}

impl ThreadCache {
    /// An empty cache. The same as all-zero memory.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self::with_wanted_back(AtomicUsize::new(0))
    }

    /// An empty cache.
    #[cfg(tiermalloc_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::with_wanted_back(AtomicUsize::new(0))
    }

    const fn with_wanted_back(wanted_back: AtomicUsize) -> Self {
        Self {
            heads: [const { Cell::new(ptr::null_mut()) }; SLOTS],
            room: [const { Cell::new(0) }; SLOTS],
            capacity: [const { Cell::new(0) }; SLOTS],
            aside: [const { Cell::new(ptr::null_mut()) }; SLOTS],
            aside_len: [const { Cell::new(0) }; SLOTS],
            overflows: [const { Cell::new(0) }; SLOTS],
            limit: Cell::new(0),
            floor: Cell::new(0),
            used: Cell::new(0),
            until_look: Cell::new(0),
            until_scavenge: Cell::new(0),
            last_look: Cell::new(0),
            lonely_looks: Cell::new(0),
            cursor: Cell::new(0),
            wanted_back,
            owner: Cell::new(0),
            place: Cell::new(0),
            refills: Cell::new(0),
            flushes: Cell::new(0),
            previous: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null_mut()),
            calls: [const { Cell::new(0) }; SLOTS],
        }
    }

    /// Takes the newest object out of bin `id`; null when the bin is empty.
    ///
    /// # Safety
    /// `this` is the calling thread's cache or a shared empty one, and `id < SLOTS`.
    #[inline(always)]
    pub unsafe fn pop(this: *const Self, id: usize) -> *mut u8 {
        // SAFETY: the caller's word for both; an object in the list is ours, and its first word is
        // the link. T3: an empty cache has no heads, so it is not written to.
        unsafe {
            let head = (&raw const (*this).heads).cast::<Cell<*mut u8>>().add(id);
            let object = (*head).get();
            if !object.is_null() {
                let next = Chain::next(object);
                (*head).set(next);
                // Its link is what the next call waits for: it may lie in another processor's cache by now.
                prefetch(next);
                let room = (&raw const (*this).room).cast::<Cell<u32>>().add(id);
                (*room).set((*room).get().wrapping_add(1));
            }
            object
        }
    }

    /// Puts an object into bin `id`; `false` when the bin is full.
    ///
    /// # Safety
    /// `this` is the calling thread's cache or a shared empty one, and `id < SLOTS`. `object` is an
    /// object of that class which the caller gives up.
    #[inline(always)]
    pub unsafe fn push(this: *const Self, id: usize, object: *mut u8) -> bool {
        // SAFETY: as in `pop`. T3: an empty cache has no room, so it is not written to.
        unsafe {
            let room = (&raw const (*this).room).cast::<Cell<u32>>().add(id);
            if (*room).get() == 0 {
                return false;
            }
            let head = (&raw const (*this).heads).cast::<Cell<*mut u8>>().add(id);
            Chain::link(object, (*head).get());
            // T4: linked before it is in the list, at no cost but the order of two stores.
            core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
            (*head).set(object);
            (*room).set((*room).get() - 1);
            true
        }
    }

    /// Objects of `class` in the list (T1).
    #[inline]
    pub(crate) fn listed(&self, class: Class) -> usize {
        let id = class.id();
        (self.capacity[id].get() - self.room[id].get() - self.aside_len[id].get()) as usize
    }

    /// Objects of `class` that the cache holds. Exact for the owner; another thread may read a number
    /// that is a moment old.
    pub fn cached(&self, class: Class) -> usize {
        let id = class.id();
        // SAFETY: both are fields of a live cache. Volatile, because another thread may ask while
        // the owner writes; a word is read whole on every machine there is.
        let (capacity, room) = unsafe {
            (self.capacity[id].as_ptr().read_volatile(), self.room[id].as_ptr().read_volatile())
        };
        capacity.saturating_sub(room) as usize
    }

    /// Bytes of all objects that the cache holds, as exact as [`cached`](Self::cached). Cost: some instructions for
    /// each class.
    pub fn cached_bytes(&self) -> usize {
        Class::all().map(|class| self.cached(class) * class.size()).sum()
    }

    /// Says whose the cache is from now on (a number for people), and starts its counts anew.
    pub fn hand_to(&self, owner: u32) {
        self.owner.set(owner);
        self.refills.set(0);
        self.flushes.set(0);
        // The last one may have been alone for long.
        self.lonely_looks.set(0);
    }

    /// Whose the cache is, how often it was refilled from the source, and how many chains it has sent there,
    /// since [`hand_to`](Self::hand_to). Another thread may read numbers that are a moment old.
    pub fn activity(&self) -> (u32, u64, u64) {
        // SAFETY: as in `cached`.
        unsafe {
            (
                self.owner.as_ptr().read_volatile(),
                self.refills.as_ptr().read_volatile(),
                self.flushes.as_ptr().read_volatile(),
            )
        }
    }

    /// The number by which the shard of the central cache is found that this cache is [near](CentralCache::near) to;
    /// 0 before anybody has said.
    #[inline]
    pub fn place(&self) -> usize {
        self.place.get() as usize
    }

    /// Says which number that is.
    pub fn set_place(&self, number: usize) {
        self.place.set(number as u32);
    }

    /// Bytes that the bins may hold, and those that they have room for, as another thread may read them.
    pub fn bounds(&self) -> (usize, usize) {
        // SAFETY: as in `cached`.
        unsafe { (self.limit.as_ptr().read_volatile(), self.used.as_ptr().read_volatile()) }
    }

    /// Gives a new cache the floor of the budget that it will claim from.
    pub fn endow(&self, budget: &Budget) {
        self.floor.set(budget.take_floor());
        self.limit.set(self.floor.get());
        self.put_scavenge_off();
    }

    /// Bytes claimed from the budget.
    #[inline]
    pub(crate) fn claimed(&self) -> usize {
        self.limit.get().saturating_sub(self.floor.get())
    }

    /// Gives the whole limit back, floor included.
    pub(crate) fn give_all_back(&self, budget: &Budget) {
        budget.give_back(self.claimed());
        budget.return_floor(self.floor.get());
        self.floor.set(0);
        self.limit.set(0);
    }

    /// Bytes that the bins may hold: the floor, and what was claimed.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Bytes that all bins together may hold at this moment.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Asks the owner to give `bytes` of its limit back at its next slow step. Called by others.
    pub fn ask_back(&self, bytes: usize) {
        // Relaxed: a number, and a request.
        self.wanted_back.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Asks the owner to give all of its limit back but for the floor.
    pub fn ask_all_back(&self) {
        // Relaxed: a number, and a request. Not so much that what others ask for could go beyond a word.
        self.wanted_back.fetch_max(usize::MAX / 2, Ordering::Relaxed);
    }
}
