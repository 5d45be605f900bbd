//! The heap itself: allocation by splitting, freeing by coalescing.

use core::ops::Range;
use core::ptr::NonNull;

use tiermalloc_page_map::{LEAF_ENTRIES, PageMap, ROOT_ENTRIES};
use tiermalloc_size_class::{Class, PAGE_SHIFT};
use tiermalloc_sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tiermalloc_sync::{CachePadded, Mutex, force_unlock, leak_locked};

use crate::demand::{BLOCK, beside};
use crate::evidence::Evidence;
use crate::filled::Filled;
use crate::free_set::FreeSet;
use crate::limit::Limits;
use crate::lock::RawLock;
use crate::meta::Records;
use crate::objects::words_for;
use crate::pace::Pace;
use crate::release::KEEP;
use crate::source::PageSource;
use crate::span::{INLINE_WORDS, Span, State};
use crate::stats::HeapStats;
use crate::waiting::Waiting;

/// Why a span could not be freed: the caller's program is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// No allocation of its own starts at this address.
    NotAnAllocation,
}

/// The page heap; see the crate's documentation.
///
/// `R` is the lock, `S` the source of pages. The map is shared with whoever has to find spans.
pub struct PageHeap<
    'm,
    R: RawLock,
    S,
    const ROOT: usize = ROOT_ENTRIES,
    const LEAF: usize = LEAF_ENTRIES,
> {
    pub(crate) map: &'m PageMap<Span, ROOT, LEAF>,
    pub(crate) source: S,
    pub(crate) keeper: Option<fn() -> bool>,
    pub(crate) relief: Option<fn()>,
    pub(crate) touched: Option<fn(usize) -> usize>,
    /// `reserved_pages` of the statistics, for who does not want to wait for it.
    pub(crate) reserved: AtomicUsize,
    /// Whether more is committed than the soft limit.
    pub(crate) tight: AtomicBool,
    /// Held while a region is added: whoever else lacks pages has some then.
    pub(crate) growing: Mutex<R, ()>,
    /// In lines of its own: what stands before it is read by everybody and hardly ever written.
    pub(crate) inner: CachePadded<Mutex<R, Inner>>,
    pub(crate) waiting: Waiting,
}

/// What the heap's lock protects.
pub(crate) struct Inner {
    pub(crate) records: Records,
    /// Free spans with pages that may be resident.
    pub(crate) dirty: FreeSet,
    /// Free spans that are all zero and cost nothing, and those whose few dirty pages are stuck.
    pub(crate) clean: FreeSet,
    pub(crate) stats: HeapStats,
    pub(crate) limits: Limits,
    pub(crate) filled: Filled,
    /// Pages of allocations, of each up to [a block](beside).
    pub(crate) beside: usize,
    /// Pages of the blocks that the last cut has begun; between two calls of `cut` none.
    pub(crate) begun: Range<usize>,
    /// When objects have begun a block the last time.
    pub(crate) begun_ms: u64,
    pub(crate) evidence: Evidence,
    pub(crate) pace: Pace,
    /// Least number of free dirty pages since the last look, and when that was.
    pub(crate) low_water: usize,
    pub(crate) looked_ms: u64,
    /// Fewer free dirty pages are nothing to think about after a free.
    pub(crate) worth_a_thought: usize,
    /// Frees until the next look at the clock.
    pub(crate) until_look: u32,
}

impl Inner {
    const fn new() -> Self {
        Self {
            records: Records::new(),
            dirty: FreeSet::new(),
            clean: FreeSet::new(),
            stats: HeapStats::new(),
            limits: Limits::new(),
            filled: Filled::new(),
            beside: 0,
            begun: 0..0,
            begun_ms: 0,
            evidence: Evidence::new(),
            pace: Pace::new(),
            low_water: 0,
            looked_ms: 0,
            worth_a_thought: KEEP + 1,
            until_look: 0,
        }
    }

    #[inline]
    pub(crate) fn take_begun(&mut self) -> Range<usize> {
        if self.begun.is_empty() { 0..0 } else { core::mem::take(&mut self.begun) }
    }

    /// The set that fits a free span: dirty ones that cannot be given back as they are wait among the
    /// clean ones.
    fn set_of(&mut self, span: &Span) -> &mut FreeSet {
        if span.dirty_pages() > 0 && !span.is_stuck() { &mut self.dirty } else { &mut self.clean }
    }

    /// Puts a free span into the set that fits it.
    ///
    /// # Safety
    /// `span` is on no set, and its record is complete.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn insert(&mut self, span: &Span) {
        span.set_state(State::Free);
        self.stats.free_pages += span.pages();
        self.stats.dirty_pages += span.dirty_pages();
        let set = self.set_of(span);
        // SAFETY: passed on to the caller.
        unsafe { set.insert(span) };
    }

    /// Takes a free span out of its set; it is `Moving` then.
    ///
    /// # Safety
    /// `span` is free and on its set.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn remove(&mut self, span: &Span) {
        self.stats.free_pages -= span.pages();
        self.stats.dirty_pages -= span.dirty_pages();
        let set = self.set_of(span);
        // SAFETY: passed on to the caller.
        unsafe { set.remove(span) };
        span.set_state(State::Moving);
    }
}

impl<'m, R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'m, R, S, ROOT, LEAF>
{
    /// A heap without pages over `source` that registers its spans in `map`.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(map: &'m PageMap<Span, ROOT, LEAF>, source: S) -> Self {
        Self {
            map,
            source,
            keeper: None,
            relief: None,
            touched: None,
            reserved: AtomicUsize::new(0),
            tight: AtomicBool::new(false),
            growing: Mutex::new(()),
            inner: CachePadded::new(Mutex::new(Inner::new())),
            waiting: Waiting::new(),
        }
    }

    /// A heap without pages over `source` that registers its spans in `map`.
    #[cfg(tiermalloc_loom)]
    pub fn new(map: &'m PageMap<Span, ROOT, LEAF>, source: S) -> Self {
        Self {
            map,
            source,
            keeper: None,
            relief: None,
            touched: None,
            reserved: AtomicUsize::new(0),
            tight: AtomicBool::new(false),
            growing: Mutex::new(()),
            inner: CachePadded::new(Mutex::new(Inner::new())),
            waiting: Waiting::new(),
        }
    }

    /// With somebody who sees to it that [`look`](Self::look) is called now and then: asked, without a
    /// lock, after some of the frees while there is something to give back. While he says yes the heap
    /// takes no looks by itself.
    pub const fn with_keeper(mut self, keeper: fn() -> bool) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// With somebody who empties the caches above: called, without a lock, when an allocation has left more
    /// committed than the soft limit.
    pub const fn with_relief(mut self, relief: fn()) -> Self {
        self.relief = Some(relief);
        self
    }

    /// With somebody who knows how many bytes there are of objects of up to so many bytes that have been handed out at
    /// one time, in spans that there are: asked, without a lock, before fresh pages are filled for objects.
    pub const fn with_touched(mut self, touched: fn(usize) -> usize) -> Self {
        self.touched = Some(touched);
        self
    }

    /// Bytes of all regions taken from the source, as they were a moment ago; one load.
    #[inline]
    pub fn reserved_bytes(&self) -> usize {
        // Relaxed: a number.
        self.reserved.load(Ordering::Relaxed) << PAGE_SHIFT
    }

    /// The free span to cut `pages` pages from: a dirty one if there is any, with what waits if need be, else a clean one.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn find(&self, inner: &mut Inner, pages: usize) -> Option<NonNull<Span>> {
        if let Some(span) = self.find_dirty(inner, pages) {
            return Some(span);
        }
        inner.clean.find(pages).map(NonNull::from)
    }

    /// [`find`](Self::find) among dirty ones.
    #[inline]
    pub(crate) fn find_dirty(&self, inner: &mut Inner, pages: usize) -> Option<NonNull<Span>> {
        if let Some(span) = inner.dirty.find(pages) {
            return Some(NonNull::from(span));
        }
        if !self.waiting.any() {
            return None;
        }
        self.return_for(inner, pages)
    }

    /// Counts pages that a region has brought, or that have gone back with their addresses.
    pub(crate) fn set_reserved(&self, inner: &mut Inner, pages: usize) {
        inner.stats.reserved_pages = pages;
        // Relaxed, under the lock: a number.
        self.reserved.store(pages, Ordering::Relaxed);
    }

    /// The map in which the heap's spans are registered.
    #[inline]
    pub fn map(&self) -> &'m PageMap<Span, ROOT, LEAF> {
        self.map
    }

    /// The source of pages.
    #[inline]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// A span for objects of `class`, with every page registered and all its objects free; or
    /// `None` when there is no memory.
    ///
    /// Cost: O(1) under the lock while a span of the wanted length or up to 1 MiB is free,
    /// O(log spans) beyond, a system call when the heap has to grow.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn alloc_objects(&self, class: Class) -> Option<NonNull<Span>> {
        let pages = class.pages();
        let words = words_for(class);
        loop {
            let before = self.reserved_bytes();
            let mut inner = self.inner.lock();
            let bits = if words > INLINE_WORDS {
                Some(inner.records.bits(&self.source, words)?)
            } else {
                None
            };
            let found = self.cut(&mut inner, pages, 1, State::Objects);
            if let (true, Some(bits)) = (found.is_none(), bits) {
                // SAFETY: taken above and not used.
                unsafe { inner.records.give_bits(bits, words) };
            }
            let begun = inner.take_begun();
            drop(inner);
            match found {
                Some(span) => {
                    // SAFETY: the span is ours until it is handed out. H3: every page is registered
                    // before any object of it can be freed.
                    unsafe {
                        self.fill_for_objects(class, begun, span.as_ref().end());
                        span.as_ref().carve(class, bits);
                        self.map.set(span.as_ref().start(), pages, span, class.id() as u8);
                    }
                    if self.is_tight() {
                        self.relieve_after_cut();
                    }
                    return Some(span);
                }
                None if self.provide(pages, pages, before) => {}
                None => return None,
            }
        }
    }

    /// A span of `pages` pages (at least one) for one allocation, starting at a multiple of `align_pages` (a power
    /// of two) pages; or `None` when there is no memory. [`Span::was_zeroed`] tells whether it is
    /// all zero.
    ///
    /// Cost: as for [`alloc_objects`](Self::alloc_objects).
    pub fn alloc_large(&self, pages: usize, align_pages: usize) -> Option<NonNull<Span>> {
        let pages = pages.max(1);
        loop {
            let before = self.reserved_bytes();
            if let Some(span) = self.alloc_large_from_free(pages, align_pages) {
                return Some(span);
            }
            if !self.provide(pages, pages.checked_add(align_pages - 1)?, before) {
                return None;
            }
        }
    }

    /// [`alloc_large`](Self::alloc_large) out of free spans only.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn alloc_large_from_free(
        &self,
        pages: usize,
        align_pages: usize,
    ) -> Option<NonNull<Span>> {
        let mut inner = self.inner.lock();
        let span = self.cut(&mut inner, pages, align_pages, State::Large);
        // Also of a cut that has failed: nothing of it is left for the next one.
        let begun = inner.take_begun();
        drop(inner);
        let span = span?;
        // SAFETY: the span is ours until it is handed out (H3).
        unsafe {
            if !begun.is_empty() {
                self.fill(begun, span.as_ref().end());
            }
            let (start, end) = (span.as_ref().start(), span.as_ref().end());
            self.waiting.note_record(span);
            self.map.set(start, 1, span, 0);
            self.map.set(end - 1, 1, span, 0);
        }
        if self.is_tight() {
            self.relieve_after_cut();
        }
        Some(span)
    }

    /// Frees an object span. All its objects have come back.
    ///
    /// # Safety
    /// `span` is an object span of this heap with no object handed out, on no list, and the caller's
    /// alone.
    pub unsafe fn free_objects(&self, span: NonNull<Span>) {
        // SAFETY: the caller's alone.
        let record = unsafe { span.as_ref() };
        debug_assert_eq!((record.state(), record.live()), (State::Objects, 0));
        let (start, pages) = (record.start(), record.pages());
        // SAFETY: the pages are the caller's; nobody holds an object of them.
        unsafe { self.map.clear(start, pages) };
        let touched = record.touched_pages();
        let bits = record.external_bits();
        let words = record.class().map_or(0, words_for);
        let mut inner = self.inner.lock();
        inner.stats.object_pages -= pages;
        if let Some(bits) = bits {
            // SAFETY: the span's own, and not used any more.
            unsafe { inner.records.give_bits(bits, words) };
            record.set_words(0);
        }
        record.set_class(None);
        record.set_dirty(0, touched);
        // SAFETY: the span is on no set.
        unsafe { self.put_back(&mut inner, span) };
        self.after_free(inner);
    }

    /// Frees the large or huge allocation that starts at `address`.
    ///
    /// # Safety
    /// If an allocation starts there, it is not used any more.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub unsafe fn free_large(&self, address: usize) -> Result<(), FreeError> {
        let mut inner = self.inner.lock();
        // Looked up under the lock: of two threads that free the same address, one finds nothing.
        let span = self.map.span(address).ok_or(FreeError::NotAnAllocation)?;
        // SAFETY: records of registered spans are valid while the lock is held.
        let record = unsafe { span.as_ref() };
        let state = record.state();
        if !matches!(state, State::Large | State::Huge) || record.address() != address {
            return Err(FreeError::NotAnAllocation);
        }
        record.set_state(State::Moving);
        inner.evidence.forget(record.start());
        // SAFETY: the span is ours now (H1), and on no set.
        unsafe {
            self.map.clear(record.start(), 1);
            if state == State::Huge {
                self.free_huge(inner, span);
                return Ok(());
            }
            if record.pages() >= BLOCK {
                self.learn_from(&mut inner, record);
            }
            self.put_back_large(&mut inner, span);
        }
        self.after_free(inner);
        Ok(())
    }

    /// [`put_back`](Self::put_back) of a large allocation.
    ///
    /// # Safety
    /// As there, but that the map has its last page.
    pub(crate) unsafe fn put_back_large(&self, inner: &mut Inner, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe {
            let record = span.as_ref();
            self.map.clear(record.end() - 1, 1);
            inner.stats.large_pages -= record.pages();
            inner.beside -= beside(record.pages());
            inner.stats.large_spans -= 1;
            record.set_dirty(0, record.pages());
            self.put_back(inner, span);
        }
    }

    /// Whether a large or huge allocation starts at `address`, at this moment.
    #[inline]
    pub fn is_large(&self, address: usize) -> bool {
        // SAFETY: nothing is done with it.
        unsafe { self.large_at(address) }.is_some()
    }

    /// The large or huge allocation that starts at `address`.
    ///
    /// # Safety
    /// If one starts there, it is the caller's, who uses the answer before it resizes, moves or frees it, and in one thread
    /// at a time.
    #[inline]
    pub unsafe fn large_at(&self, address: usize) -> Option<&Span> {
        // SAFETY: records stay records; that of a live allocation is its own.
        let span = unsafe { self.map.span(address)?.as_ref() };
        (matches!(span.state(), State::Large | State::Huge) && span.address() == address)
            .then_some(span)
    }

    /// Takes the heap's lock and keeps it, before a fork.
    pub fn lock_for_fork(&self) {
        leak_locked(&self.growing);
        leak_locked(&self.inner);
    }

    /// Gives the lock up after a fork, in parent and child.
    ///
    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe {
            force_unlock(&self.inner);
            force_unlock(&self.growing);
        }
    }
}
