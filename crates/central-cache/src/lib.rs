//! The central cache: per size class a transfer cache of batches and lists of spans.
//!
//! It stands between the threads' caches and the page heap, and evens out who frees and who
//! allocates. Objects travel in *chains*: singly linked through their first words.
//!
//! # The road of an object
//!
//! ```text
//!    fetch:  [ transfer cache ] -- empty --> [ fullest span ] -- none --> span source (page heap)
//!               a whole batch,                 carve lazily, lowest
//!               nothing touched                addresses first
//!    store:  [ transfer cache ] -- full --> [ span of each object ] -- span all free --> source
//! ```
//!
//! The transfer cache holds whole batches by their first object, so that a batch that one thread
//! freed reaches another one in a few instructions. The spans of a class stand on eight lists by
//! occupancy; objects are taken from the fullest, so that the emptiest drain and can be given back.
//!
//! All of this is there once for each *shard*: one, unless [`CentralCache::widen`] is called, for machines of many
//! processors. Threads are spread over the shards by [`CentralCache::near`]. A transfer cache keeps its batches in some
//! *lanes*, so that who frees and who allocates beside him get their own back ([`spread`]).
//!
//! # Invariants
//! - C1: an object is in one place: handed out, on one chain of the transfer cache, or free in its
//!   span's bits.
//! - C2: a span is on the list of its occupancy, or on none while it is full or being moved.
//! - C3: a span leaves its class only with no object handed out, under the lock of the class, and is
//!   freed after the lock was given up.
//!
//! - C4: a span belongs to one shard, which its record names from before its first object is handed out until it is
//!   freed; its object fields are under the lock of its class in that shard.
//! - C5: a span that a shard keeps has no object handed out, and is on its list alone.
//! - C6: of a batch that waits the list is what it was, and the second word of the first object is the next batch of its lane; of
//!   objects of one word it is the last one's first word, which is null otherwise. A lane's last batch has a null there.
//!
//! Locks: per class and shard one for the transfer cache and one for the spans, per shard one for the spans that it
//! keeps; never two at once, nor one while the source is called, or an object touched but for the word of C6 and those on the way to it. Who widens the cache has a lock
//! for that, and those of the spans one after the other in it. Each class has its own
//! cache lines.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(any(test, tiermalloc_loom))]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod carry;
mod central;
mod chain;
mod counts;
mod homing;
mod kept;
mod lane;
#[cfg(tiermalloc_loom)]
mod modelled;
mod shard;
mod single;
mod spans;
mod straight;
mod transfer;
mod waiting;

pub use central::{CentralCache, ClassStats, Misuse};
pub use chain::Chain;
pub use counts::{ClassCounts, Survey};
pub use lane::spread;
pub use shard::{Near, SHARDS};
pub use tiermalloc_page_heap::{Past, RawLock};

use core::ptr::NonNull;

use tiermalloc_page_heap::{PageHeap, PageSource, Span};
use tiermalloc_size_class::Class;

/// What the central cache takes spans from: the page heap, or a test's stand-in.
///
/// # Safety
/// `alloc_span` returns a span in state `Objects`, carved for the class, that nobody else has; its
/// memory is valid until `free_span`. `span_of` answers exactly for every object of such a span.
pub unsafe trait SpanSource {
    /// A fresh span for `class`, or `None` when there is no memory.
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>>;

    /// Takes a span back.
    ///
    /// # Safety
    /// The span came from `alloc_span`, has no object handed out, and is the caller's alone.
    unsafe fn free_span(&self, span: NonNull<Span>);

    /// The span under an address, if there is one.
    fn span_of(&self, address: usize) -> Option<NonNull<Span>>;

    /// [`alloc_span`](Self::alloc_span), and up to `more` further spans of as many pages behind it, if that is no dearer:
    /// each is passed to `spare`, for [`recarve`](Self::recarve) or [`free_span`](Self::free_span).
    fn alloc_span_run(
        &self,
        class: Class,
        more: usize,
        spare: &mut dyn FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        let _ = (more, spare);
        self.alloc_span(class)
    }

    /// Told of a span that is kept from now on, until [`recarve`](Self::recarve) or [`free_span`](Self::free_span): nothing
    /// that somebody frees may be found in it.
    ///
    /// # Safety
    /// The span came from `alloc_span`, has no object handed out, and is the caller's alone.
    unsafe fn unregister(&self, span: NonNull<Span>) {
        let _ = span;
    }

    /// Makes an object span without objects handed out one of `class`, which has as many pages, and carves it anew.
    /// `false`: it is as it was, because that is not possible, or no faster than another one.
    ///
    /// # Safety
    /// The span came from `alloc_span`, has no object handed out, and is the caller's alone.
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        let _ = (span, class);
        false
    }

    /// Told now and then while much waits in the transfer caches: an occasion to have them looked after.
    fn surplus(&self) {}

    /// Bytes that the source has taken from the system, about; what caches above it may hold goes by
    /// that. Without a bound where nobody says.
    fn reserved_bytes(&self) -> usize {
        usize::MAX
    }

    /// Whether memory is short, so that caches should be small.
    fn is_tight(&self) -> bool {
        false
    }

    /// Bytes that all transfer caches together may hold at this moment. Without a bound where nobody says.
    fn cache_room(&self) -> usize {
        usize::MAX
    }
}

// SAFETY: the page heap carves and registers the span before it returns it.
unsafe impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize> SpanSource
    for PageHeap<'_, R, S, ROOT, LEAF>
{
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        self.alloc_objects(class)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.free_objects(span) }
    }
    fn alloc_span_run(
        &self,
        class: Class,
        more: usize,
        spare: &mut dyn FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        self.alloc_objects_run(class, more, spare)
    }
    unsafe fn unregister(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.unregister_objects(span) }
    }
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.recarve_objects(span, class) }
    }
    #[inline]
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.map().span(address)
    }
    #[inline]
    fn reserved_bytes(&self) -> usize {
        PageHeap::reserved_bytes(self)
    }
    #[inline]
    fn is_tight(&self) -> bool {
        PageHeap::is_tight(self)
    }
    #[inline]
    fn cache_room(&self) -> usize {
        if PageHeap::is_tight(self) { 0 } else { usize::MAX }
    }
}

// SAFETY: passed on to the source behind the reference.
unsafe impl<S: SpanSource + ?Sized> SpanSource for &S {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        (**self).alloc_span(class)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { (**self).free_span(span) }
    }
    fn alloc_span_run(
        &self,
        class: Class,
        more: usize,
        spare: &mut dyn FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        (**self).alloc_span_run(class, more, spare)
    }
    unsafe fn unregister(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { (**self).unregister(span) }
    }
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).recarve(span, class) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        (**self).span_of(address)
    }
    fn surplus(&self) {
        (**self).surplus();
    }
    fn reserved_bytes(&self) -> usize {
        (**self).reserved_bytes()
    }
    fn is_tight(&self) -> bool {
        (**self).is_tight()
    }
    fn cache_room(&self) -> usize {
        (**self).cache_room()
    }
}
