//! Huge pages where the program has shown that it fills them.
//!
//! A fault that brings 2 MiB costs little more than one that brings 4 KiB, and the processor's tables reach
//! further afterwards; but a huge page is resident whole, however little of it is used. So the source is asked
//! for one ([`PageSource::advise`]) only where little of it will be wasted:
//!
//! - for small objects, when the heap has run through all that was free and begins a *block* of whole fresh pages, of
//!   the size of a huge page, while three quarters of what is in use are small objects which have been handed out at one
//!   time ([`PageHeap::with_touched`]): so it will be with these; for longer ones, while seven eighths are. What is
//!   longer, such as stacks and tables, may be touched here and there only, and counts as if it was not; of a table of many blocks only as much as can lie in one that was begun.
//! - for an allocation of blocks, when the last one that was freed had memory behind nearly all of its pages, as had
//!   one that was not much shorter, or when there is memory behind nearly all pages of the newest one that was left as
//!   it is. One in sixteen is, and one whenever four times as much was filled as was found so, so that there is
//!   something to go by; while that one is empty, none is filled. One that was filled tells, when it is freed, whether each of
//!   its huge pages was touched.
//! - for a mapping that grows beyond a power of two, when there was memory behind nearly all of it; up to four times that.
//!
//! What goes back to the system goes back in whole blocks as far as the free span goes, and what has gone is advised
//! against: otherwise the kernel would, sooner or later, fill the holes of a block with memory again.

use core::ops::Range;
use core::ptr::NonNull;

use tiermalloc_size_class::{Class, PAGE_SHIFT, PAGE_SIZE, STAGGER};

use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::{Span, State};

/// Pages of small objects from which on fresh blocks are made of huge pages (4 MiB).
const GATE: usize = 512;
/// Milliseconds that a heap takes at most for a block while it grows. One that has been about as large for longer goes a little
/// beyond what it was once, which is no reason for 2 MiB more.
const GROWS_MS: u64 = 500;
/// The largest small object: of what is not longer than that, half is touched if any of it is, in pages of the system's
/// (bytes; 8 KiB are asked for). Buffers of 16 KiB for a thousand connections each are often used in their first page alone.
pub(crate) const SMALL: usize = (8 << 10) + STAGGER;
/// One part in so many of what is in use may be something else, or untouched.
const OTHERS: usize = 4;
/// Pages of a block (2 MiB).
pub(crate) const BLOCK: usize = 256;
/// Pages of an allocation from which on the block in which it ends is filled with it (8 MiB).
const WITH_REST: usize = 4 * BLOCK;

/// The blocks (of `block` pages, a power of two) of which the first fresh page lies in `cut`, out of a free span,
/// and which lie in its `fresh` pages altogether.
fn blocks_begun(fresh: Range<usize>, cut: &Range<usize>, block: usize) -> Range<usize> {
    let down = |page: usize| page & !(block - 1);
    let first = fresh.start.next_multiple_of(block).max(down(cut.start));
    let end = down(fresh.end).min(cut.end.next_multiple_of(block));
    first..end.max(first)
}

/// Pages of an allocation that can come to lie in a block which was begun for something else, or lead up to one.
#[inline]
pub(crate) fn beside(pages: usize) -> usize {
    pages.min(BLOCK)
}

/// The blocks that pages lie in.
fn blocks_of(pages: &Range<usize>) -> Range<u32> {
    (pages.start / BLOCK) as u32..pages.end.div_ceil(BLOCK) as u32
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Takes down in `begun` which pages are best backed by huge ones when `pages` pages are cut out of a free span, `head`
    /// pages from its start; for small objects, if [they are dense](Self::fill_for_objects).
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn note_begun(
        &self,
        inner: &mut Inner,
        span: &Span,
        head: usize,
        pages: usize,
        state: State,
    ) {
        let concerns = state == State::Objects || pages >= BLOCK;
        // Under limits what is committed is counted by pages that are handed out, not by what comes with them.
        if !concerns || self.source.block_bytes() != BLOCK * PAGE_SIZE || inner.limits.any {
            return;
        }
        let (start, (lo, hi)) = (span.start(), span.dirty());
        let (whole, dirty) = (start..span.end(), start + lo..start + hi);
        let cut = start + head..start + head + pages;
        let end = whole.end;
        let fresh = match dirty.is_empty() {
            true => whole,
            false if cut.end > dirty.end => dirty.end..whole.end,
            false => whole.start..dirty.start,
        };
        if state == State::Objects {
            let blocks = blocks_begun(fresh, &cut, BLOCK);
            if !blocks.is_empty() {
                let now = self.source.now_ms();
                let last = core::mem::replace(&mut inner.begun_ms, now);
                if inner.stats.object_pages >= GATE && now.saturating_sub(last) < GROWS_MS {
                    inner.begun = blocks;
                }
            }
            return;
        }
        // Dirty pages may have been none when they became so: between two dirty spans that met there may be a hole.
        let mut blocks = blocks_begun(cut.clone(), &cut, BLOCK);
        // What comes behind it may be anything: the block in which it ends only where that is little of it.
        let rest = cut.end.next_multiple_of(BLOCK);
        if pages >= WITH_REST && rest <= end && dirty.end <= cut.end {
            blocks.end = rest;
        }
        let all_fresh = fresh.start <= cut.start && cut.end <= fresh.end;
        if !blocks.is_empty()
            && !inner.filled.has(&blocks_of(&blocks))
            && self.is_to_be_filled(inner, cut, all_fresh)
        {
            inner.begun = blocks;
        }
    }

    /// [`fill`](Self::fill) for objects of a class, if what is in use shows that such pages are touched.
    ///
    /// # Safety
    /// As for `fill`.
    #[inline]
    pub(crate) unsafe fn fill_for_objects(
        &self,
        class: Class,
        pages: Range<usize>,
        end: usize,
    ) -> bool {
        let others = if class.size() <= SMALL { OTHERS } else { 2 * OTHERS };
        let wanted = !pages.is_empty() && self.is_dense(others);
        // SAFETY: passed on to the caller.
        wanted && unsafe { self.fill(pages, end) }
    }

    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    fn is_dense(&self, others: usize) -> bool {
        // Without the heap's lock: whoever is asked has locks of his own.
        let touched = self.touched.map_or(0, |touched| touched(SMALL) >> PAGE_SHIFT);
        let inner = self.inner.lock();
        let in_use = inner.stats.object_pages + inner.beside;
        touched >= GATE && touched + in_use / others >= in_use
    }

    /// Asks the source to fill pages that were begun by a cut up to the page `end`, if there is room to remember them by.
    /// `true`: it was asked.
    ///
    /// # Safety
    /// The pages are the heap's, from [`note_begun`](Self::note_begun).
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) unsafe fn fill(&self, pages: Range<usize>, end: usize) -> bool {
        let mut inner = self.inner.lock();
        if !inner.filled.add(blocks_of(&pages)) {
            return false;
        }
        // SAFETY: the lock is held.
        unsafe { self.note_resident(&mut inner, end..pages.end) };
        drop(inner);
        // Somebody may give the end of the last block back at this very moment, which is free, addresses and all: only
        // where there are no addresses left.
        // SAFETY: passed on to the caller.
        unsafe { self.advise(pages, true) };
        true
    }

    /// What of a block that is about to be filled lies behind the cut is free, as far as it still is, and is resident
    /// soon: it counts as dirty, is used next, and goes back if it is not.
    ///
    /// # Safety
    /// Under the lock.
    unsafe fn note_resident(&self, inner: &mut Inner, rest: Range<usize>) {
        if rest.is_empty() {
            return;
        }
        let Some(next) = self.free_neighbour(rest.start) else { return };
        // SAFETY: free, and the lock is held, so its record is valid and it is on its set.
        unsafe {
            let span = next.as_ref();
            let ((lo, hi), resident) = (span.dirty(), rest.len().min(span.pages()));
            // An interval has no hole.
            if span.start() == rest.start && (lo == hi || lo <= resident) {
                inner.remove(span);
                span.set_dirty(0, hi.max(resident));
                inner.insert(span);
            }
        }
    }

    /// # Safety
    /// The pages are the heap's.
    pub(crate) unsafe fn advise(&self, pages: Range<usize>, full: bool) {
        if let Some(start) = NonNull::new((pages.start << PAGE_SHIFT) as *mut u8) {
            // SAFETY: passed on to the caller.
            unsafe { self.source.advise(start, pages.len() * PAGE_SIZE, full) };
        }
    }

    /// The range `from..to` (bytes) of a free span that is to go back: in whole blocks as far as the span goes, because
    /// the rest of a huge page is resident too.
    pub(crate) fn whole_blocks(&self, from: usize, to: usize, span: &Span) -> Range<usize> {
        let block = self.source.block_bytes();
        if block == 0 {
            return from..to;
        }
        let (start, end) = (span.address(), span.address() + span.bytes());
        (from & !(block - 1)).max(start)..to.next_multiple_of(block).min(end)
    }

    /// After a range (bytes) has gone back: that nobody fills its blocks, as far as somebody was asked to.
    ///
    /// # Safety
    /// The range is the heap's.
    pub(crate) unsafe fn leave_empty(&self, range: Range<usize>) {
        let block = self.source.block_bytes();
        if block == 0 {
            return;
        }
        let blocks = blocks_of(&(range.start >> PAGE_SHIFT..range.end.div_ceil(PAGE_SIZE)));
        loop {
            let part = self.inner.lock().filled.take(blocks.clone());
            let Some(part) = part else { return };
            // SAFETY: the heap's: it was filled, and has not left the heap since.
            unsafe {
                self.advise(part.start as usize * BLOCK..part.end as usize * BLOCK, false);
            }
        }
    }

    /// Pages leave the heap, addresses and all.
    pub(crate) fn forget_filled(inner: &mut Inner, pages: Range<usize>) {
        let blocks = blocks_of(&pages);
        while inner.filled.take(blocks.clone()).is_some() {}
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
