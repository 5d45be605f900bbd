//! The thread cache: 208 bins of free objects that one thread owns, without lock or atomics.
//!
//! A bin is a list threaded through the objects and the room left in it. The fast paths, [`pop`] and
//! [`push`](ThreadCache::push), are a handful of instructions; everything else happens when a bin is
//! empty ([`refill`](ThreadCache::refill)) or full ([`overflow`](ThreadCache::overflow)).
//!
//! [`pop`]: ThreadCache::pop
//!
//! # How much a thread may keep
//!
//! - A bin has a *capacity* in objects. It starts at nothing and doubles with each refill or overflow
//!   up to a batch; then a refill adds a batch, and overflow after overflow takes one away. The first refill
//!   fetches one object; of those smaller than a cache line eight, whose lines are the thread's own then.
//! - The capacities of all bins, in bytes, stay within the thread's *limit*; the limit is claimed in
//!   pieces from a [`Budget`] that all threads share, and is at most a quarter of what stands behind the
//!   source of objects, or 4 MiB. So the total is obeyed, and counting happens
//!   where capacities change, not where objects do. A thread without any limit works, object by
//!   object.
//! - When the budget is used up, room that other bins do not use is taken first, and then other
//!   threads are asked to give some back, which they do at their next slow step. A bin that has room for
//!   two batches does neither.
//! - What a bin has not needed for a while goes back: every so many slow steps the whole list is put
//!   *aside*; the bin takes objects back from there as it needs them, and what is still aside at the
//!   next such step is exactly what lay below the bin's low-water mark.
//!
//! # Order
//!
//! Lists give out what was freed in the order of the frees, backwards. So long runs of frees are looked at, and what was aside, once some batches
//! of a class wait: those whose objects do not lie side by side go to their spans, out of which objects come in order of address. Where other
//! caches are at work, that is for more than a processor has at hand, and for batches that lie in no order at all: others wait for batches, and spans that several
//! threads have objects in are dear. A cache sees by looking around now and then whether it is alone. The others of such a run name their objects in second words, so that whoever takes such a batch asks for all of it at
//! once and not for one object after the other.
//!
//! # Invariants
//! - T1: `room = capacity - objects in list - objects aside`, for each bin.
//! - T2: the sum of `capacity * size` is `used`, and `used <= limit`.
//! - T3: an all-zero cache is empty and full at once: no fast path ever writes to it. One such, shared
//!   and never written to, serves every thread that has none of its own.
//! - T4: an object leaves the list before anybody else may have it, for which the lock of its class may stand, and enters it after it was linked;
//!   so at any instant the list is whole, which is what a fork's child relies on. What stands behind the first word of an object in a bin
//!   is a hint at most: nothing is read or written by way of it.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(test)]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod ahead;
mod budget;
mod cache;
mod drain;
mod list;
mod look;
mod orphans;
mod registry;
mod slow;

pub use budget::Budget;
pub use cache::ThreadCache;
pub use orphans::Orphans;
pub use registry::Registry;
pub use tiermalloc_central_cache::{Chain, Misuse};

use tiermalloc_central_cache::{CentralCache, Near, RawLock, SpanSource};
use tiermalloc_size_class::Class;

/// What a thread cache takes objects from and gives them back to: the central cache, or a test's
/// stand-in.
///
/// # Safety
/// `fetch` returns a chain of objects of the class that nobody else has, aligned as they are in a span:
/// to the largest power of two that divides their size, up to a page.
pub unsafe trait ObjectSource {
    /// Up to `wanted` (at least 1) free objects; none when there is no memory.
    fn fetch(&self, class: Class, wanted: usize) -> Chain;

    /// Called after a [`fetch`](Self::fetch) of the class, when what it gave is in the bin: an occasion to
    /// let go of what others leave unused.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    fn make_way(&self, class: Class) -> Result<(), Misuse> {
        let _ = class;
        Ok(())
    }

    /// Takes free objects back.
    ///
    /// # Errors
    /// The program freed something that is not a live object of the class.
    ///
    /// # Safety
    /// The chain owns its objects.
    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse>;

    /// [`store`](Self::store) of what is not to be kept anywhere on the way.
    ///
    /// # Errors
    /// As for `store`.
    ///
    /// # Safety
    /// As for `store`.
    unsafe fn send_home(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.store(class, chain) }
    }

    /// [`send_home`](Self::send_home) of the first `count` objects of a list, one at least and at most a batch. Before anybody else may have one of them
    /// `out` is told what is left of the list, and its error is the answer if it finds one.
    ///
    /// # Errors
    /// As for `store`; that the list has fewer objects. Some of the objects may be free elsewhere then, of which `out` does not know: the list
    /// is of no use any more.
    ///
    /// # Safety
    /// As for `store`, of the first `count` objects from `head` on.
    unsafe fn send_first_home(
        &self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe {
            out(list::cut(class, head, count)?)?;
            self.send_home(class, Chain { head, count })
        }
    }

    /// Whether a batch, by its first few objects, [goes home](Self::send_home) without the locks of those that others are near to;
    /// `false` where they might have to wait.
    ///
    /// # Safety
    /// The chain owns its objects.
    unsafe fn is_own(&self, batch: Chain) -> bool {
        let _ = batch;
        true
    }

    /// Batches of `class` that wait here as they are for somebody who wants one, a moment old: while there are few, somebody
    /// else may be taking them. With 0, which is the default, none [goes home](Self::send_home) for lying in no order; of a shard it is
    /// 0 as well while somebody is at the spans of the class, unlike [`Near::waiting`].
    fn waiting(&self, class: Class) -> usize {
        let _ = class;
        0
    }

    /// Called before a cache keeps an object of a class of which it has sent others home just now: whether it is a live
    /// one, as far as the source knows.
    ///
    /// # Errors
    /// What a free of it would be reported as.
    fn check_live(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        let _ = (class, object);
        Ok(())
    }

    /// Bytes that stand behind the source, about: a thread's cache may hold a part of them. Without a bound
    /// where nobody says.
    fn reserved_bytes(&self) -> usize {
        usize::MAX
    }

    /// Whether memory is short: then a thread keeps its floor and no more.
    fn is_tight(&self) -> bool {
        false
    }

    /// Bytes that the source itself caches, and that count with what threads claim.
    fn cached_bytes(&self) -> usize {
        0
    }

    /// Called by each thread at its scavenges: an occasion to look after what lies idle in the source.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    fn tend(&self) -> Result<(), Misuse> {
        Ok(())
    }
}

// SAFETY: the central cache hands each object out once.
unsafe impl<R: RawLock, S: SpanSource> ObjectSource for Near<'_, R, S> {
    #[inline]
    fn fetch(&self, class: Class, wanted: usize) -> Chain {
        Near::fetch(*self, class, wanted)
    }
    #[inline]
    fn make_way(&self, class: Class) -> Result<(), Misuse> {
        Near::make_way(*self, class)
    }
    #[inline]
    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { Near::store(*self, class, chain) }
    }
    unsafe fn send_home(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.central().store_to_spans(class, chain) }
    }
    #[inline]
    unsafe fn send_first_home(
        &self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.central().store_first_to_spans(class, head, count, out) }
    }
    #[inline]
    unsafe fn is_own(&self, batch: Chain) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { Near::is_own(*self, batch) }
    }
    #[inline]
    fn waiting(&self, class: Class) -> usize {
        if self.is_busy(class) { 0 } else { Near::waiting(*self, class) }
    }
    fn check_live(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        self.central().check_live(class, object)
    }
    #[inline]
    fn reserved_bytes(&self) -> usize {
        self.central().source().reserved_bytes()
    }
    #[inline]
    fn is_tight(&self) -> bool {
        self.central().source().is_tight()
    }
    #[inline]
    fn cached_bytes(&self) -> usize {
        self.held_about()
    }
    fn tend(&self) -> Result<(), Misuse> {
        self.plunder_next()
    }
}

// SAFETY: passed on to the first shard.
unsafe impl<R: RawLock, S: SpanSource> ObjectSource for CentralCache<R, S> {
    #[inline]
    fn fetch(&self, class: Class, wanted: usize) -> Chain {
        self.near(0).fetch(class, wanted)
    }
    #[inline]
    fn make_way(&self, class: Class) -> Result<(), Misuse> {
        self.near(0).make_way(class)
    }
    #[inline]
    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.near(0).store(class, chain) }
    }
    unsafe fn send_home(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.store_to_spans(class, chain) }
    }
    #[inline]
    unsafe fn send_first_home(
        &self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.store_first_to_spans(class, head, count, out) }
    }
    #[inline]
    unsafe fn is_own(&self, batch: Chain) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.near(0).is_own(batch) }
    }
    #[inline]
    fn waiting(&self, class: Class) -> usize {
        ObjectSource::waiting(&self.near(0), class)
    }
    fn check_live(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        CentralCache::check_live(self, class, object)
    }
    #[inline]
    fn reserved_bytes(&self) -> usize {
        self.source().reserved_bytes()
    }
    #[inline]
    fn is_tight(&self) -> bool {
        self.source().is_tight()
    }
    #[inline]
    fn cached_bytes(&self) -> usize {
        self.near(0).held_about()
    }
    fn tend(&self) -> Result<(), Misuse> {
        self.near(0).plunder_next()
    }
}
