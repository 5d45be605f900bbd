//! Whether the program fills its long allocations: what has been seen of them so far.
//!
//! Of an allocation of blocks nobody knows when it is made what of it will be touched. But programs go on as they did: so those
//! that are freed are looked at, and the newest one that lives, where it was fresh and left as it is. What was
//! filled with huge pages says less, whether each of them was touched; so it vouches for itself and not for others that were
//! filled. The rules are in [`demand`](crate::demand).

use core::ops::Range;
use core::ptr::NonNull;

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};

use crate::demand::BLOCK;
use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::Span;

/// Pages of an allocation that are looked at.
const SAMPLES: usize = 8;
/// Between their places within their parts: the golden ratio's part of 2^32 (Knuth, volume 3, section 6.4).
const GOLDEN: usize = 0x9e37_79b9;
/// Behind how many of them there has to be memory.
const DENSE: usize = 7;
/// Bytes of such a page: of the system's where there are blocks.
const SAMPLE: usize = 4096;
/// What is not longer than so many times a dense one will be dense as well, and so many times what was dense altogether.
const LONGER: usize = 4;
/// Bytes of a mapping that grows from which on it is filled where it was (16 MiB).
const GROWN: usize = 8 * BLOCK * PAGE_SIZE;
/// Of so many that would be filled one is left as it is.
const TRIALS: u32 = 16;

/// What is known of the program's longer allocations. Under the heap's lock.
pub(crate) struct Evidence {
    /// The longest since one was not (pages), of those that were dense, or filled and begun in each of their blocks.
    longest: usize,
    /// Pages that were found dense since then, and those that were filled before the last such.
    dense: usize,
    /// Pages that were filled since the last was found dense, less those that have told themselves.
    filled: usize,
    /// Allocations that asked.
    turn: u32,
    /// The pages of the newest one that was fresh and is not made of huge pages.
    newest: Range<usize>,
}

impl Evidence {
    pub(crate) const fn new() -> Self {
        Self { longest: 0, dense: 0, filled: 0, turn: 0, newest: 0..0 }
    }

    /// Whether an allocation of so many pages will be filled, as far as is known; and takes down that it is. No more is
    /// filled on somebody's word than some times what was found dense: so much may be wrong.
    fn speaks_for(&mut self, pages: usize) -> bool {
        let known = pages <= self.longest.saturating_mul(LONGER)
            && self.filled + pages <= self.dense.saturating_mul(LONGER);
        if known {
            self.turn = self.turn.wrapping_add(1);
        }
        let speaks = known && self.turn % TRIALS != 0;
        if speaks {
            self.filled += pages;
        }
        speaks
    }

    /// Takes down whether an allocation was dense; if it is, those that were filled before are as well.
    fn note(&mut self, pages: usize, dense: bool) {
        if dense {
            self.longest = self.longest.max(pages);
            self.dense = self.dense.saturating_add(pages).saturating_add(self.filled);
        } else {
            (self.longest, self.dense) = (0, 0);
        }
        self.filled = 0;
    }

    /// The same of one that was filled, of which only is known whether each of its blocks was touched: that speaks for longer
    /// ones, but no more are filled for it than were. One that was not speaks against them.
    fn note_filled(&mut self, pages: usize, begun: bool) {
        self.filled = self.filled.saturating_sub(pages);
        if begun {
            self.longest = self.longest.max(pages);
        } else {
            (self.longest, self.dense) = (0, 0);
        }
    }

    /// The allocation that begins with a page is about to be freed.
    pub(crate) fn forget(&mut self, start: usize) {
        self.moved(start, 0..0);
    }

    /// The allocation that began with a page takes these ones now. One that is no longer a block long tells nothing.
    fn moved(&mut self, start: usize, pages: Range<usize>) {
        if self.newest.start == start {
            self.newest = if pages.len() < BLOCK { 0..0 } else { pages };
        }
    }
}

impl Inner {
    /// A large or huge allocation that lives takes other pages from now on.
    pub(crate) fn set_extent(&mut self, span: &Span, start: usize, pages: usize) {
        self.evidence.moved(span.start(), start..start + pages);
        span.set_extent(start, pages);
    }
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Whether an allocation of blocks will be filled, as far as is known: by those that were freed, and by the newest one
    /// that was left as it is, if there is memory behind nearly all of it by now. While there is not, nobody knows.
    pub(crate) fn is_to_be_filled(
        &self,
        inner: &mut Inner,
        cut: Range<usize>,
        all_fresh: bool,
    ) -> bool {
        let evidence = &mut inner.evidence;
        let newest = core::mem::replace(&mut evidence.newest, 0..0);
        let waits = !newest.is_empty()
            && !self.is_filled(newest.start << PAGE_SHIFT, newest.len() << PAGE_SHIFT);
        if !newest.is_empty() && !waits {
            evidence.note(newest.len(), true);
        }
        let fill = !waits && evidence.speaks_for(cut.len());
        if !fill {
            // What has told tells nothing more.
            evidence.newest = match (all_fresh, waits) {
                (true, _) => cut,
                (false, true) => newest,
                (false, false) => 0..0,
            };
        }
        fill
    }

    /// Asks the source to fill a mapping of `bytes` bytes that was made for one allocation, if such ones are filled. Whether it
    /// was asked.
    ///
    /// # Safety
    /// The mapping is the caller's.
    pub(crate) unsafe fn fill_mapping(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let block = self.source.block_bytes();
        if block == 0 || bytes < block {
            return false;
        }
        let first = start.as_ptr() as usize >> PAGE_SHIFT;
        let mut inner = self.inner.lock();
        let filled = !inner.limits.any
            && self.is_to_be_filled(&mut inner, first..first + (bytes >> PAGE_SHIFT), true);
        drop(inner);
        if filled {
            // All of it: the system moves and lengthens what is one mapping.
            // SAFETY: passed on to the caller.
            unsafe { self.source.advise(start, bytes, true) };
        }
        filled
    }

    /// After a huge allocation has grown from `old` bytes: asks the source to fill all of it, if the program had filled what
    /// it had. Most such are filled from their start to their end, so that a huge page at most is resident in vain. But
    /// the system keeps to what it was asked for however far the mapping grows: so beyond [`LONGER`] times what was full
    /// it is not filled any more, until what has come since is full as well.
    ///
    /// Looked at from [`GROWN`] on, when its length passes a power of two.
    ///
    /// # Safety
    /// The allocation is the caller's.
    pub(crate) unsafe fn fill_grown(&self, span: &Span, old: usize) {
        let (bytes, to) = (span.bytes(), span.filled_to());
        if bytes <= to || self.source.block_bytes() == 0 {
            return;
        }
        let worth = bytes >= GROWN && bytes.ilog2() > old.ilog2() && bytes / LONGER <= old;
        // Who fills everything need not be asked, and would keep to it if he was told not to.
        if (to == 0 && !worth) || self.source.fills_unasked() {
            return;
        }
        let full = to == 0 && self.is_filled(span.address(), old);
        if full {
            let mut inner = self.inner.lock();
            if inner.limits.any {
                return;
            }
            // What consists of huge pages tells nothing.
            inner.evidence.forget(span.start());
        } else if to == 0 {
            return;
        }
        span.set_filled_to(if full { old * LONGER } else { 0 });
        // SAFETY: passed on to the caller.
        unsafe { self.advise(span.start()..span.end(), full) };
    }

    /// Whether there is memory behind nearly all of an allocation that was fresh: looked at in some pages, neither the first
    /// nor the last, one in each eighth, at distances that no program steps by. Nothing is touched.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    fn is_filled(&self, start: usize, bytes: usize) -> bool {
        let step = bytes / SAMPLES;
        let pages = step / SAMPLE - 2;
        let inside = |n: usize| 1 + (n + 1).wrapping_mul(GOLDEN) % pages;
        let sample = |n: usize| ((start + n * step) & !(SAMPLE - 1)) + inside(n) * SAMPLE;
        let mut gone = (0..SAMPLES).filter(|&n| !self.source.is_resident(sample(n)));
        gone.nth(SAMPLES - DENSE).is_none()
    }

    /// Takes down what a long allocation of the heap's that is about to be freed was like.
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn learn_from(&self, inner: &mut Inner, span: &Span) {
        // Pages in which others have left something say nothing.
        let blocks = span.start().div_ceil(BLOCK) as u32..(span.end() / BLOCK) as u32;
        if self.source.block_bytes() == 0 || !span.was_zeroed() {
            return;
        }
        if !inner.filled.has_any(&blocks) {
            inner.evidence.note(span.pages(), self.is_filled(span.address(), span.bytes()));
        } else if blocks.len() > 1 && inner.filled.has(&blocks) {
            inner.evidence.note_filled(span.pages(), self.is_begun(blocks));
        }
    }

    /// Whether there is memory behind nearly all of some blocks that were to be filled: they were touched in one place each,
    /// at least.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    fn is_begun(&self, blocks: Range<u32>) -> bool {
        let samples = blocks.len().min(SAMPLES);
        let block = |n: usize| blocks.start as usize + n * blocks.len() / samples;
        let begun = |&n: &usize| self.source.is_resident((block(n) * BLOCK) << PAGE_SHIFT);
        let gone = samples - (0..samples).filter(begun).count();
        gone <= samples / SAMPLES * (SAMPLES - DENSE)
    }
}
