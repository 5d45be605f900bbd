//! Giving memory back.
//!
//! Free dirty pages are kept as long as they were needed lately: the least number of them since the
//! last look is what nobody wanted in all that time, and half of it goes back at each look. Looks
//! are taken when spans are freed, not too often ([`PageHeap::set_pace`]), unless somebody else takes them: the
//! *keeper*, who is asked now and then ([`PageHeap::with_keeper`]) and can do it when nothing is freed.

use core::ptr::NonNull;

use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::MutexGuard;

use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::{Span, State};

/// Frees between two readings of the clock.
const FREES_PER_READING: u32 = 16;
/// Free dirty pages that are never worth a system call (512 KiB).
pub(crate) const KEEP: usize = 64;
/// Free dirty pages from which on the keeper is asked (2 MiB).
pub(crate) const WORTH_A_KEEPER: usize = if cfg!(tiermalloc_loom) { 1 } else { 256 };
/// System calls that one look, or the end of one thread, may make: the rest waits for the next.
const CALLS: usize = 32;
/// Fewest dirty pages of a span that such a call is made for (64 KiB).
pub(crate) const WORTH_A_CALL: usize = if cfg!(tiermalloc_loom) { 1 } else { 8 };

/// What [`PageHeap::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// Free dirty pages that nobody has wanted since the last look.
    pub idle: usize,
    /// Free dirty pages at this moment.
    pub dirty: usize,
}

impl Inner {
    /// What has been idle since the last look, from which on the next such number counts.
    fn start_period(&mut self) -> usize {
        let low_water = core::mem::replace(&mut self.low_water, self.stats.dirty_pages);
        // What has gone back meanwhile is not there any more.
        low_water.min(self.stats.dirty_pages)
    }
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Called with the lock after every free; gives it up.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn after_free<'a>(&'a self, mut inner: MutexGuard<'a, R, Inner>) {
        if inner.stats.dirty_pages < inner.worth_a_thought && !self.waiting.any() {
            return;
        }
        if self.note_soft_limit(&inner) {
            return self.mind_soft_limit(inner);
        }
        if inner.stats.dirty_pages <= KEEP && !self.waiting.any() {
            return;
        }
        if inner.until_look > 0 {
            inner.until_look -= 1;
            return;
        }
        inner.until_look = FREES_PER_READING;
        self.consider(inner);
    }

    /// Now and then, with the lock: asks the keeper, if there is enough to give back, or takes a look if one is due.
    pub(crate) fn consider<'a>(&'a self, mut inner: MutexGuard<'a, R, Inner>) {
        let dirty = inner.stats.dirty_pages + self.waiting.count().1;
        if let Some(keeper) = self.keeper.filter(|_| dirty >= WORTH_A_KEEPER) {
            drop(inner);
            if keeper() {
                return;
            }
            self.waiting.forget_watch();
            inner = self.inner.lock();
        }
        let now = self.source.now_ms();
        if now.saturating_sub(inner.looked_ms) < inner.pace.period_ms {
            return;
        }
        // The very first look has nothing to compare with.
        let first = inner.looked_ms == 0;
        inner.looked_ms = now;
        let idle = inner.start_period();
        drop(inner);
        // Nor has what waits, if somebody else has looked a moment ago.
        if !first {
            self.return_idle();
        }
        if !first && idle > KEEP {
            self.release_idle(idle / 2);
        }
    }

    /// Starts a new period for whoever decides what goes back, and says what the last one was like.
    ///
    /// Cost: the lock, and some instructions.
    pub fn look(&self) -> Look {
        let mut inner = self.inner.lock();
        // Whoever looks in the heap's own name has nothing to compare with for a while.
        inner.looked_ms = 0;
        Look { idle: inner.start_period(), dirty: inner.stats.dirty_pages }
    }

    /// Gives free dirty pages back until at most `keep` are left. Returns the number of pages that
    /// went back.
    pub fn release_down_to(&self, keep: usize) -> usize {
        self.return_all_waiting();
        let dirty = self.inner.lock().stats.dirty_pages;
        if dirty > keep { self.release_pages(dirty - keep) } else { 0 }
    }

    /// Gives at least `wanted` free dirty pages back, longest spans first, as far as there are any.
    /// Returns the number of pages that went back. The system calls are made outside the lock.
    pub fn release_pages(&self, wanted: usize) -> usize {
        let mut released = 0;
        self.return_all_waiting();
        while released < wanted {
            match self.release_one(usize::MAX, 1) {
                Some(pages) => released += pages,
                None => break,
            }
        }
        released
    }

    /// [`release_down_to`](Self::release_down_to), but for spans so short that a system call for each is
    /// hardly worth it.
    pub fn release_down_to_worth(&self, keep: usize) -> usize {
        self.return_all_waiting();
        let mut released = 0;
        while self.inner.lock().stats.dirty_pages > keep {
            match self.release_one(usize::MAX, WORTH_A_CALL) {
                Some(pages) => released += pages,
                None => break,
            }
        }
        released
    }

    /// Gives about `wanted` free dirty pages back, not many more, in a bounded number of system calls
    /// and without calls that are hardly worth it. Returns the number of pages that went back.
    pub fn release_some(&self, wanted: usize) -> usize {
        self.release_by(wanted, |wanted| self.release_one(wanted.max(WORTH_A_CALL), WORTH_A_CALL))
    }

    /// Gives about `wanted` pages back by a bounded number of steps.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn release_by(&self, wanted: usize, step: impl Fn(usize) -> Option<usize>) -> usize {
        let mut released = 0;
        for _ in 0..CALLS {
            if released >= wanted {
                break;
            }
            match step(wanted - released) {
                Some(pages) => released += pages,
                None => break,
            }
        }
        released
    }

    /// Gives up to about `wanted` free dirty pages back in one system call, out of a span that is worth
    /// it, or out of `any`. Returns the number of pages that went back; `None`: there is no such span,
    /// or the source will not have it.
    pub fn release_step(&self, wanted: usize, any: bool) -> Option<usize> {
        let least = if any { 1 } else { WORTH_A_CALL };
        self.release_one(wanted.max(least), least)
    }

    /// Gives the dirty pages of the longest dirty span back and returns their number. What is left over
    /// of them is stuck until the span is merged with another, so each call has a span less to look at.
    /// No more than about `most` pages, from the end of the dirty interval; what is left of it then is
    /// there for the next call. `None`: there is no dirty span of `least` pages, or the source will not
    /// have it.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn release_one(&self, most: usize, least: usize) -> Option<usize> {
        let mut inner = self.inner.lock();
        let span = NonNull::from(inner.dirty.longest()?);
        // SAFETY: spans on the sets are valid under the lock.
        if unsafe { span.as_ref() }.pages() < least {
            return None;
        }
        // SAFETY: the span is on the dirty set; taking it out under the lock makes it ours (H1).
        let record = unsafe {
            inner.remove(span.as_ref());
            self.map.clear(span.as_ref().start(), 1);
            self.map.clear(span.as_ref().end() - 1, 1);
            span.as_ref()
        };
        debug_assert_eq!(record.state(), State::Moving);
        let dirty = record.dirty_pages();
        let this = inner.begin_move(record, dirty);
        drop(inner);
        let released = self.decommit(record, most);
        let left = record.dirty_pages();
        if released.is_some() && left > 0 && (most >= dirty || left == dirty) {
            record.set_stuck();
        }
        let mut inner = self.inner.lock();
        let pages = released.unwrap_or(0);
        inner.stats.decommitted_pages += pages;
        inner.stats.decommits += (pages > 0) as usize;
        // SAFETY: ours, on no set, in the map with no page.
        unsafe { self.put_back(&mut inner, span) };
        inner.end_move(this);
        self.note_soft_limit(&inner);
        released
    }

    /// Gives the dirty interval of a span, or about `most` pages at its end, back in whole OS pages; what
    /// is left over at the ends stays dirty. Returns the number of dirty pages that went back; `None`
    /// when the source refused.
    fn decommit(&self, span: &Span, most: usize) -> Option<usize> {
        let os = self.source.os_page_size();
        let (lo, hi) = span.dirty();
        let (lo_at, hi_at) = (span.address() + lo * PAGE_SIZE, span.address() + hi * PAGE_SIZE);
        // Outwards as far as the span goes: what is clean already may be given back again.
        let to = if hi_at.next_multiple_of(os) <= span.address() + span.bytes() {
            hi_at.next_multiple_of(os)
        } else {
            hi_at & !(os - 1)
        };
        // An interval has no hole: where its very end cannot go, all of the rest goes at once.
        let first = if to < hi_at { lo } else { hi.saturating_sub(most).max(lo) };
        let from = span.address() + first * PAGE_SIZE;
        let from = if from & !(os - 1) >= span.address() {
            from & !(os - 1)
        } else {
            from.next_multiple_of(os)
        };
        if from >= to {
            return Some(0);
        }
        // Over clean pages only: where no more is to go, no more goes.
        let blocks = self.whole_blocks(from, to, span);
        let (from, to) = (if first == lo { blocks.start } else { from }, blocks.end);
        // SAFETY: the pages are the span's, and it is ours and free.
        unsafe {
            if !self.source.decommit(NonNull::new(from as *mut u8)?, to - from) {
                return None;
            }
            self.leave_empty(from..to);
        }
        let left_head = from.saturating_sub(lo_at) / PAGE_SIZE;
        let left_tail = hi_at.saturating_sub(to) / PAGE_SIZE;
        match (left_head, left_tail) {
            (0, 0) => span.set_dirty(0, 0),
            (head, 0) => span.set_dirty(lo, lo + head),
            (0, tail) => span.set_dirty(hi - tail, hi),
            // No hole: what went back between them counts as dirty on.
            _ => {}
        }
        Some(hi - lo - left_head - left_tail)
    }
}
