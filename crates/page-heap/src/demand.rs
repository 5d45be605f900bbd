//! Huge pages where the program has shown that it fills them.
//!
//! A fault that brings 2 MiB costs little more than one that brings 4 KiB, and the processor's tables reach
//! further afterwards; but a huge page is resident whole, however little of it is used. So the source is asked
//! for one ([`PageSource::advise`]) only where next to nothing of it will be wasted:
//!
//! - when the heap has run through all that was free and begins a *block* of whole fresh pages, of the size of a
//!   huge page, while it has [`GATE`] pages in use and hardly any of its object spans is untouched
//!   ([`PageHeap::with_untouched`]): so it will be with these, and the rest of one block is wasted at most.
//! - for an allocation that is longer than a block, when the last such that were freed had been touched nearly
//!   everywhere. One in [`TRIALS`] does without, so that there is something to go by.
//!
//! And what goes back to the system goes back in whole blocks as far as the free span goes, and is advised
//! against: otherwise the kernel would, sooner or later, fill the holes of a block with memory again.

use core::ops::Range;
use core::ptr::NonNull;

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};
use tiermalloc_sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::Span;

/// Pages in use from which on fresh blocks are made of huge pages (8 MiB).
const GATE: usize = 1024;
/// Shortest block that there is (pages; 2 MiB). Nothing shorter is looked at.
pub(crate) const BLOCK: usize = 256;
/// A part of the object spans that may be untouched.
const SPARSE: usize = 16;
/// Pages of an allocation that are looked at when it is freed.
const SAMPLES: usize = 8;
/// How many of them have to be there.
const DENSE: usize = 7;
/// After so many dense ones in a row the next ones will be, too.
const ENOUGH: u32 = 2;
/// Of so many dense ones one is left without huge pages.
const TRIALS: u32 = 8;
/// Pages reserved from which on nothing is advised against (32 GiB): it would take too many of the mappings
/// that a process may have.
const MANY: usize = 1 << 22;

/// What is known of the program's longer allocations.
pub(crate) struct Evidence {
    /// Dense ones seen in a row, up to [`ENOUGH`].
    score: AtomicU32,
    /// Allocations that asked.
    turn: AtomicU32,
    /// Address and bytes of the newest that has been neither looked at nor filled.
    newest: AtomicUsize,
    newest_bytes: AtomicUsize,
}

impl Evidence {
    #[cfg(not(tiermalloc_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            score: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            newest: AtomicUsize::new(0),
            newest_bytes: AtomicUsize::new(0),
        }
    }

    #[cfg(tiermalloc_loom)]
    pub(crate) fn new() -> Self {
        Self {
            score: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            newest: AtomicUsize::new(0),
            newest_bytes: AtomicUsize::new(0),
        }
    }

    /// Whether the next allocation will be filled, as far as is known.
    fn speaks_for_it(&self) -> bool {
        // Relaxed, here and below: hints.
        self.is_in() && self.turn.fetch_add(1, Ordering::Relaxed) % TRIALS != TRIALS - 1
    }

    fn is_in(&self) -> bool {
        self.score.load(Ordering::Relaxed) >= ENOUGH
    }

    /// Takes down whether an allocation was dense.
    fn note(&self, dense: bool) {
        let score = self.score.load(Ordering::Relaxed);
        self.score.store(if dense { (score + 1).min(ENOUGH) } else { 0 }, Ordering::Relaxed);
    }
}

/// The blocks (of `block` pages, a power of two) of which the first fresh page lies in `cut`, out of a free span,
/// and which lie in its `fresh` pages altogether.
fn blocks_begun(fresh: Range<usize>, cut: &Range<usize>, block: usize) -> Range<usize> {
    let down = |page: usize| page & !(block - 1);
    let first = fresh.start.next_multiple_of(block).max(down(cut.start));
    let end = down(fresh.end).min(cut.end.next_multiple_of(block));
    first..end.max(first)
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// The pages that are best backed by huge ones when `cut` is taken out of the free span `whole`, of which the
    /// pages `dirty` may be resident. Empty: none.
    #[inline]
    pub(crate) fn to_fill(
        &self,
        inner: &Inner,
        whole: Range<usize>,
        dirty: Range<usize>,
        cut: Range<usize>,
    ) -> Range<usize> {
        if whole.len() < BLOCK { 0..0 } else { self.to_fill_of_long(inner, whole, dirty, cut) }
    }

    #[cold]
    fn to_fill_of_long(
        &self,
        inner: &Inner,
        whole: Range<usize>,
        dirty: Range<usize>,
        cut: Range<usize>,
    ) -> Range<usize> {
        let block = self.source.block_bytes() >> PAGE_SHIFT;
        // What is committed is counted by pages that are handed out, not by what comes with them.
        if block < BLOCK || inner.limits.any {
            return 0..0;
        }
        let fresh = match dirty.is_empty() {
            true => whole,
            false if cut.end > dirty.end => dirty.end..whole.end,
            false => whole.start..dirty.start,
        };
        let begun = blocks_begun(fresh, &cut, block);
        if begun.is_empty() {
            return begun;
        }
        let in_use = inner.stats.object_pages + inner.stats.large_pages;
        if cut.len() < block {
            return if in_use >= GATE { begun } else { 0..0 };
        }
        if !self.evidence.speaks_for_it() {
            return 0..0;
        }
        // All of a small heap is this allocation: no further than it goes.
        if in_use >= GATE { begun } else { blocks_begun(cut.clone(), &cut, block) }
    }

    /// [`fill`](Self::fill) for what is shorter than a block: if the object spans show that such pages are touched.
    ///
    /// # Safety
    /// As for `fill`.
    #[inline]
    pub(crate) unsafe fn fill_for_objects(&self, pages: Range<usize>) {
        if !pages.is_empty() && self.is_dense() {
            // SAFETY: passed on to the caller.
            unsafe { self.fill(pages) };
        }
    }

    #[cold]
    fn is_dense(&self) -> bool {
        let untouched = self.untouched.map_or(0, |untouched| untouched() >> PAGE_SHIFT);
        untouched <= self.inner.lock().stats.object_pages / SPARSE
    }

    /// Says so to the source.
    ///
    /// # Safety
    /// The pages are the heap's, from [`to_fill`](Self::to_fill).
    pub(crate) unsafe fn fill(&self, pages: Range<usize>) {
        if pages.is_empty() {
            return;
        }
        if let Some(start) = NonNull::new((pages.start << PAGE_SHIFT) as *mut u8) {
            // SAFETY: passed on to the caller.
            unsafe { self.source.advise(start, pages.len() * PAGE_SIZE, true) };
        }
    }

    /// [`fill`](Self::fill) of a mapping of `bytes` bytes that was made for one allocation.
    ///
    /// # Safety
    /// The mapping is the caller's.
    pub(crate) unsafe fn fill_mapping(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let block = self.source.block_bytes();
        let fills = block > 0 && bytes >= block && self.evidence.speaks_for_it();
        if fills {
            // All of it: the system moves and lengthens what is one mapping.
            // SAFETY: passed on to the caller.
            unsafe { self.source.advise(start, bytes, true) };
        }
        fills
    }

    /// Looks at some pages of an allocation that is about to be freed.
    pub(crate) fn learn_from(&self, span: &Span) {
        // What consists of huge pages says nothing, nor does what others have filled before.
        if self.source.block_bytes() == 0 || span.is_filled() || !span.was_zeroed() {
            return;
        }
        let newest = &self.evidence.newest;
        let seen = newest.compare_exchange(span.address(), 0, Ordering::Relaxed, Ordering::Relaxed);
        // What has shown itself before it was freed counts once.
        if seen.is_ok() || !self.evidence.is_in() {
            self.evidence.note(self.is_full(span.address(), span.bytes()));
        }
    }

    /// Remembers a fresh allocation that is not filled.
    pub(crate) fn remember(&self, span: &Span) {
        if self.source.block_bytes() > 0 && span.was_zeroed() && !span.is_filled() {
            self.evidence.newest_bytes.store(span.bytes(), Ordering::Relaxed);
            self.evidence.newest.store(span.address(), Ordering::Relaxed);
        }
    }

    /// Before another long allocation: looks at the one before, if it is still there. Where it is not full, it may
    /// yet come to be.
    pub(crate) fn learn_from_newest(&self) {
        if self.evidence.is_in() || self.evidence.newest.load(Ordering::Relaxed) == 0 {
            return;
        }
        let address = self.evidence.newest.swap(0, Ordering::Relaxed);
        // Of two threads one may see the other's length: a mistaken answer at worst.
        let bytes = self.evidence.newest_bytes.load(Ordering::Relaxed);
        if address != 0 && self.is_full(address, bytes) {
            self.evidence.note(true);
        }
    }

    /// Whether there is memory behind nearly all of some pages. Asking about addresses that are not there any more does
    /// no harm.
    fn is_full(&self, address: usize, bytes: usize) -> bool {
        let step = bytes / SAMPLES;
        let there = |n: &usize| self.source.is_resident(address + n * step + step / 2);
        (0..SAMPLES).filter(there).count() >= DENSE
    }

    /// The range `from..to` that is to go back, of a free span from `start` to `end`: in whole blocks as far as the
    /// span goes, because the rest of a huge page is resident too.
    pub(crate) fn whole_blocks(&self, from: usize, to: usize, span: &Span) -> Range<usize> {
        let block = self.source.block_bytes();
        if block == 0 || span.pages() < BLOCK / 2 {
            return from..to;
        }
        let (start, end) = (span.address(), span.address() + span.bytes());
        (from & !(block - 1)).max(start)..to.next_multiple_of(block).min(end)
    }

    /// After a range has gone back: that nobody fills its blocks.
    ///
    /// # Safety
    /// The range is the heap's.
    pub(crate) unsafe fn leave_empty(&self, range: Range<usize>) {
        let block = self.source.block_bytes();
        // Relaxed: a number.
        let few = self.reserved.load(Ordering::Relaxed) < MANY;
        if block == 0 || !few {
            return;
        }
        let (from, to) = (range.start & !(block - 1), range.end.next_multiple_of(block));
        if let Some(start) = NonNull::new(from as *mut u8) {
            // SAFETY: passed on to the caller; a region consists of whole blocks from the first one on that was
            // advised, and for others the advice changes nothing that they hold.
            unsafe { self.source.advise(start, to - from, false) };
        }
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_are_fresh_and_begun(
            start in 0usize..600, length in 1usize..900, at in 0usize..900, pages in 1usize..900,
        ) {
            let fresh = start..start + length;
            let cut = start + at..start + at + pages;
            let blocks = blocks_begun(fresh.clone(), &cut, 64);
            prop_assert!(blocks.start % 64 == 0 || blocks.is_empty());
            for block in (0..2000).step_by(64) {
                let lies = fresh.start <= block && block + 64 <= fresh.end;
                let begun = cut.start < block + 64 && block < cut.end;
                let said = blocks.start <= block && block + 64 <= blocks.end;
                prop_assert_eq!(said, lies && begun, "{} of {:?} by {:?}: {:?}", block, &fresh, &cut, &blocks);
            }
        }
    }
}
