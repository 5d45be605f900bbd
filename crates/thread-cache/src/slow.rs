//! What happens when a bin is empty or full.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{CLASSES, Class, MAX_BATCH};
use tiermalloc_sync::atomic::Ordering;

use crate::ahead::{cut_with_names, fetch_ahead};
use crate::list::{cut, ends_with};
use crate::{Budget, ObjectSource, Registry, ThreadCache};
use tiermalloc_central_cache::RawLock;

/// Bytes claimed from the budget at once.
const CLAIM: usize = 16 * 1024;
/// One thread's cache may claim such a part of what stands behind the source,
const SHARE: usize = 4;
/// but this much in any case (bytes).
const LEAST_SHARE: usize = 4096 * 1024;
/// Most objects that a bin may be given room for.
const MAX_CAPACITY: usize = 8192;
/// Overflows in a row, a long run of frees, of which each further one makes a bin's capacity shrink by a batch.
const PATIENCE: u8 = 16;
/// Beside the count of overflows: the bin was refilled at one time, by this thread or one that had the cache before. Who only
/// frees has no use for order.
const REFILLED: u8 = 128;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Objects that a bin for smaller ones begins with: whole lines of its own (see the central cache).
const LINES: usize = 8;
/// Bytes of an object for each of which the source has to be called on once for its class before the bin gets room,
/// and some of which each scavenge forgets,
const EARNED: usize = if cfg!(tiermalloc_loom) { 1 << 20 } else { 256 };
/// at most so many times: a fair part of the steps between two scavenges for each class that a program uses all the time.
const MOST_CALLS: usize = 128;
/// Bins looked at when unused room is collected.
const LOOK_AT: usize = 16;

impl ThreadCache {
    /// An object of `class` for a bin that is empty, and a part of a batch into the bin; null when
    /// there is no memory.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    ///
    /// # Safety
    /// The cache is the calling thread's own (not a shared empty one), and the bin is empty.
    pub unsafe fn refill<R: RawLock>(
        &self,
        class: Class,
        source: &impl ObjectSource,
        budget: &Budget,
        registry: &Registry<R>,
    ) -> Result<*mut u8, Misuse> {
        let id = class.id();
        self.overflows[id].set(REFILLED);
        self.slow_step(source, budget, registry)?;
        // A scavenge may have put the list aside, and what is aside comes first.
        if self.aside_len[id].get() > 0 {
            // SAFETY: the objects aside are ours.
            return unsafe { self.take_aside(class) };
        }
        let batch = class.batch();
        let capacity = self.capacity[id].get() as usize;
        let first = if class.size() < LINE { LINES.min(batch) } else { 1 };
        let more = match capacity {
            0 if self.is_rare(class) => 0,
            0 => first,
            _ if capacity < batch => capacity.min(batch - capacity),
            _ => batch,
        };
        self.enlarge(class, more, source, budget, registry);
        let capacity = self.capacity[id].get() as usize;
        let mut chain = source.fetch(class, capacity.clamp(1, batch));
        // SAFETY: the chain is ours.
        unsafe { fetch_ahead(class, chain) };
        self.refills.set(self.refills.get() + 1);
        // SAFETY: the chain is ours.
        let Some(object) = (unsafe { chain.pop() }) else {
            return Ok(ptr::null_mut());
        };
        // T1: at most `capacity` objects were fetched, one is handed out. With a capacity of 0 the
        // chain is empty now.
        self.heads[id].set(chain.head);
        self.room[id].set((capacity - chain.count) as u32);
        source.make_way(class)?;
        Ok(object)
    }

    /// Takes an object back into a bin that is full: gives the bin room, or sends a batch away.
    ///
    /// # Errors
    /// The program freed something that is not a live object of its class.
    ///
    /// # Safety
    /// The cache is the calling thread's own (not a shared empty one); `object` is an object of
    /// `class` that the caller gives up.
    pub unsafe fn overflow<R: RawLock>(
        &self,
        class: Class,
        object: *mut u8,
        source: &impl ObjectSource,
        budget: &Budget,
        registry: &Registry<R>,
    ) -> Result<(), Misuse> {
        let id = class.id();
        let batch = class.batch();
        self.slow_step(source, budget, registry)?;
        // Of classes with one object a batch no list would ever show it.
        if self.heads[id].get() == object {
            return Err(Misuse::DoubleFree(object, class));
        }
        let capacity = self.capacity[id].get() as usize;
        if capacity == 0 && class.size() < LINE && self.overflows[id].get() & !REFILLED == 0 {
            // The first object of its class here is somebody else's: its cache line may hold others of
            // theirs, and goes from processor to processor if it is handed out here.
            self.overflows[id].set(self.overflows[id].get() + 1);
            // SAFETY: passed on to the caller.
            return unsafe { store_one(class, object, source) };
        }
        if capacity == 0 && self.is_rare(class) {
            // SAFETY: passed on to the caller.
            return unsafe {
                Chain::link(object, ptr::null_mut());
                source.send_home(class, Chain { head: object, count: 1 })
            };
        }
        if self.room[id].get() == 0 && capacity < batch {
            let more = capacity.clamp(1, batch - capacity);
            self.enlarge(class, more, source, budget, registry);
            if capacity == 0 && class.size() >= EARNED && self.room[id].get() > 0 {
                // The first that stays. Freed before, it may have gone home, where nobody would look while it lies here.
                source.check_live(class, object)?;
            }
        }
        if self.room[id].get() == 0 {
            // SAFETY: the objects in the bin are ours.
            unsafe { self.make_room(class, source)? };
        }
        // SAFETY: passed on to the caller.
        unsafe {
            if !Self::push(self, id, object) {
                // No capacity at all: past the bin.
                return store_one(class, object, source);
            }
        }
        Ok(())
    }

    /// Whether a class without capacity has not been called for often enough yet, in view of what one of its objects that waits
    /// in vain costs; counts the call.
    fn is_rare(&self, class: Class) -> bool {
        let calls = &self.calls[class.id()];
        let rare = (calls.get() as usize) < (class.size() / EARNED).min(MOST_CALLS);
        calls.set(calls.get() + rare as u8);
        rare
    }

    /// Sends what is aside away, or a batch; after several such in a row the bin shrinks each time.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    unsafe fn make_room(&self, class: Class, source: &impl ObjectSource) -> Result<(), Misuse> {
        let id = class.id();
        // SAFETY: the objects are ours.
        unsafe {
            if self.aside_len[id].get() > 0 {
                return self.flush_aside(class, source).map(drop);
            }
            let before = self.overflows[id].get();
            let batch = class.batch();
            if before & !REFILLED < PATIENCE - 1 {
                self.overflows[id].set(before + 1);
            } else {
                if batch == MAX_BATCH && before >= REFILLED {
                    return self.make_room_in_long_run(class, source);
                }
                if self.capacity[id].get() as usize >= 2 * batch {
                    self.flush(class, batch, source)?;
                    self.shrink(class, batch);
                }
            }
            self.flush(class, batch, source)
        }
    }

    /// The same in a long run of frees: what is [better taken apart](Self::goes_home) goes home, and the other batches, which will lie for
    /// some time, [name](cut_with_names) their objects.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    unsafe fn make_room_in_long_run(
        &self,
        class: Class,
        source: &impl ObjectSource,
    ) -> Result<(), Misuse> {
        let batch = class.batch();
        let shrinks = self.capacity[class.id()].get() as usize >= 2 * batch;
        for _ in 0..1 + usize::from(shrinks) {
            // SAFETY: the objects are ours.
            unsafe {
                let head = self.heads[class.id()].get();
                let count = batch.min(self.listed(class));
                if count == 0 {
                    break;
                }
                let home = self.goes_home(class, Chain { head, count }, source)?;
                if home && self.is_alone() {
                    let out = |rest| self.set_off(class, rest, count);
                    if let Err(misuse) = source.send_first_home(class, head, count, out) {
                        // Some are free elsewhere, and nobody knows which.
                        self.heads[class.id()].set(ptr::null_mut());
                        return Err(misuse);
                    }
                } else if home {
                    source.send_home(class, self.take_off(class, batch, cut)?)?;
                } else {
                    source.store(class, self.take_off(class, batch, cut_with_names)?)?;
                }
            }
        }
        if shrinks {
            self.shrink(class, batch);
        }
        Ok(())
    }

    /// Cuts up to `count` objects off the list and sends them to the source.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn flush(
        &self,
        class: Class,
        count: usize,
        source: &impl ObjectSource,
    ) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller; what was cut off is ours.
        unsafe {
            let chain = self.take_off(class, count, cut)?;
            if chain.count > 0 { source.store(class, chain) } else { Ok(()) }
        }
    }

    /// Cuts up to `count` objects off the list, for the source.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    #[inline(always)]
    unsafe fn take_off(
        &self,
        class: Class,
        count: usize,
        cut: unsafe fn(Class, *mut u8, usize) -> Result<*mut u8, Misuse>,
    ) -> Result<Chain, Misuse> {
        let count = count.min(self.listed(class));
        let head = self.heads[class.id()].get();
        // SAFETY: the list has `count` objects (T1), and they are ours.
        let rest = unsafe { cut(class, head, count)? };
        self.set_off(class, rest, count)?;
        Ok(Chain { head, count })
    }

    /// The first `count` objects of the list go to the source, and `rest` is what is left of it.
    #[inline(always)]
    fn set_off(&self, class: Class, rest: *mut u8, count: usize) -> Result<(), Misuse> {
        let id = class.id();
        ends_with(class, rest, self.listed(class) - count)?;
        // T4: out of the list before anybody else may have them.
        self.heads[id].set(rest);
        self.room[id].set(self.room[id].get() + count as u32);
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
        if count > 0 {
            self.flushes.set(self.flushes.get() + 1);
        }
        Ok(())
    }

    /// Takes up to a batch back from aside into the empty list, and one object out of it.
    ///
    /// # Safety
    /// The cache is the calling thread's own, the list is empty, and something is aside.
    unsafe fn take_aside(&self, class: Class) -> Result<*mut u8, Misuse> {
        let id = class.id();
        let aside = self.aside_len[id].get() as usize;
        let count = class.batch().min(aside);
        let first = self.aside[id].get();
        // SAFETY: `count` objects are there, and they are ours.
        let rest = unsafe { cut(class, first, count)? };
        ends_with(class, rest, aside - count)?;
        // T4: out of one list before they are in the other.
        self.aside[id].set(rest);
        self.aside_len[id].set((aside - count) as u32);
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
        // SAFETY: as above. T1: one object leaves the bin.
        self.heads[id].set(unsafe { Chain::next(first) });
        self.room[id].set(self.room[id].get() + 1);
        Ok(first)
    }

    /// Gives a bin room for `more` more objects, as far as limit, budget and unused room allow.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn enlarge<R: RawLock>(
        &self,
        class: Class,
        more: usize,
        source: &impl ObjectSource,
        budget: &Budget,
        registry: &Registry<R>,
    ) {
        let id = class.id();
        let size = class.size();
        let capacity = self.capacity[id].get() as usize;
        let more = more.min(MAX_CAPACITY - capacity.min(MAX_CAPACITY));
        let need = more * size;
        let missing = need.saturating_sub(self.limit.get() - self.used.get());
        if missing > 0 {
            let share = (source.reserved_bytes() / SHARE).max(LEAST_SHARE);
            let share = share.min(budget.per_thread());
            let wanted = missing.max(CLAIM);
            let tight = source.is_tight();
            // Who has his share already need not ask what others have.
            let granted = match tight || self.claimed() >= share {
                true => 0,
                false => budget.claim_beside(source.cached_bytes(), share, wanted, self.claimed()),
            };
            self.limit.set(self.limit.get() + granted);
            // A bin that has room for two batches does well enough; others are not robbed for it.
            if granted < missing && capacity < 2 * class.batch() {
                self.collect_room(id, need);
                // And, for the next time:
                if granted == 0 && !tight && self.claimed() < share {
                    registry.ask_another(self, CLAIM);
                }
            }
        }
        let left = self.limit.get() - self.used.get();
        if left < size {
            return;
        }
        // T2
        let granted = more.min(left / size);
        self.used.set(self.used.get() + granted * size);
        self.capacity[id].set(self.capacity[id].get() + granted as u32);
        self.room[id].set(self.room[id].get() + granted as u32);
    }

    /// Takes unused room from other bins until `need` bytes of the limit are unused.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn collect_room(&self, except: usize, need: usize) {
        let mut cursor = self.cursor.get() as usize;
        for _ in 0..LOOK_AT {
            cursor = cursor % CLASSES + 1;
            let missing = need.saturating_sub(self.limit.get() - self.used.get());
            if missing == 0 {
                break;
            }
            if cursor == except {
                continue;
            }
            if let Some(class) = Class::from_id(cursor) {
                let spare = self.room[cursor].get() as usize;
                self.shrink(class, missing.div_ceil(class.size()).min(spare));
            }
        }
        self.cursor.set(cursor as u32);
    }

    /// Takes `count` objects of unused room away from a bin.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn shrink(&self, class: Class, count: usize) {
        let id = class.id();
        let count = count.min(self.room[id].get() as usize);
        self.capacity[id].set(self.capacity[id].get() - count as u32);
        self.room[id].set(self.room[id].get() - count as u32);
        self.used.set(self.used.get() - count * class.size());
    }

    /// Gives back what was claimed and no bin has use for: others may claim it.
    pub fn release_unused(&self, budget: &Budget) {
        let unused = (self.limit.get() - self.used.get()).min(self.claimed());
        self.limit.set(self.limit.get() - unused);
        budget.give_back(unused);
    }

    /// Gives as much of the limit back as others have asked for, flushing bins if need be.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn give_limit_back(
        &self,
        source: &impl ObjectSource,
        budget: &Budget,
    ) -> Result<(), Misuse> {
        let wanted = self.wanted_back.swap(0, Ordering::Relaxed).min(self.claimed());
        for id in 1..=CLASSES {
            if self.limit.get() - self.used.get() >= wanted {
                break;
            }
            if let Some(class) = Class::from_id(id) {
                self.shrink(class, usize::MAX);
            }
        }
        for id in 1..=CLASSES {
            if self.limit.get() - self.used.get() >= wanted {
                break;
            }
            if let Some(class) = Class::from_id(id) {
                // SAFETY: the cache is the calling thread's own, as in all of this module.
                unsafe { self.empty_bin(class, source)? };
            }
        }
        let given = wanted.min(self.limit.get() - self.used.get());
        self.limit.set(self.limit.get() - given);
        budget.give_back(given);
        Ok(())
    }
}

/// Sends one object to the source.
///
/// # Safety
/// The object is the caller's, of `class`.
unsafe fn store_one(
    class: Class,
    object: *mut u8,
    source: &impl ObjectSource,
) -> Result<(), Misuse> {
    // SAFETY: passed on to the caller.
    unsafe {
        Chain::link(object, ptr::null_mut());
        source.store(class, Chain { head: object, count: 1 })
    }
}
