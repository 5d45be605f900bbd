//! Limits on what the heap may make resident.
//!
//! What counts, in pages (*committed*): spans in use, whole, touched or not; free pages that may be
//! resident; huge and guarded allocations; spans that are on their way between two of these; and records.
//! Free pages that are clean cost nothing and do not count. Each page is taken to cost nine bytes more, for
//! its entries in the page map, whether they are touched or not.
//!
//! Committed pages grow where clean pages become somebody's: when a span is cut, when a large one grows
//! into its neighbour, when a mapping is made or lengthened. There, and nowhere else, the *hard* limit is
//! asked, under the lock, before anything has changed. If it says no, free dirty pages go back first, outside
//! the lock; only without any more of these the allocation fails. Above the *soft* limit nothing fails, but
//! free pages go back as soon as they are free.
//!
//! What counts as dirty may be clean, never the other way round: a span has one dirty interval. So a free can make
//! more pages count than the limit allows, and makes none resident.
//!
//! Invariant H6: no allocation leaves more pages committed than the hard limit, apart from a chunk of records.

use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::MutexGuard;
use tiermalloc_sync::atomic::Ordering;

use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::release::KEEP;
use crate::source::PageSource;
use crate::span::Span;

/// Bytes of the page map for each page.
pub const MAP_BYTES: usize = 9;
/// Fewest pages that go back at once when there is no room (512 KiB): a system call for each page would take
/// its time.
const AT_ONCE: usize = if cfg!(tiermalloc_loom) { 1 } else { 64 };
/// How often who needs room, or addresses, waits for those who are giving pages back at this moment, in milliseconds.
const PATIENCE: usize = 200;

/// The limits, under the lock; in pages, and as they were set.
pub(crate) struct Limits {
    hard: usize,
    soft: usize,
    /// Whether there is any limit.
    pub(crate) any: bool,
    hard_bytes: usize,
    soft_bytes: usize,
    /// Pages that were committed and are being given back.
    moving: usize,
    /// Such pages of threads that do not exist in this process, and of this one before it forked.
    lost: usize,
    /// The spans in the hands of those who give pages back, by the parity of the turn in which they took them: who waits for
    /// them begins a new turn, so that who comes later is counted apart. It begins when nobody is left of the turn before.
    moves: [usize; 2],
    turn: usize,
    /// Pages of these spans, committed or not.
    in_hand: usize,
    /// Pages that somebody else has and that count with the heap's.
    elsewhere: usize,
    /// Allocations that the hard limit has refused.
    refused: usize,
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Self {
            hard: usize::MAX,
            soft: usize::MAX,
            any: false,
            hard_bytes: 0,
            soft_bytes: 0,
            moving: 0,
            lost: 0,
            moves: [0; 2],
            turn: 0,
            in_hand: 0,
            elsewhere: 0,
            refused: 0,
        }
    }
}

/// A span in somebody's hands.
#[derive(Debug)]
pub(crate) struct Move {
    /// Pages that count as moving,
    committed: usize,
    /// and all.
    pages: usize,
    turn: usize,
}

impl Limits {
    fn note_any(&mut self) {
        self.any = self.hard != usize::MAX || self.soft != usize::MAX;
    }
}

/// Whole pages, with their entries in the page map, within so many bytes; 0 bytes are no limit.
const fn pages_within(bytes: usize) -> usize {
    if bytes == 0 { usize::MAX } else { bytes / (PAGE_SIZE + MAP_BYTES) }
}

impl Inner {
    /// What counts at this moment (pages).
    pub(crate) fn committed(&self) -> usize {
        let stats = &self.stats;
        stats.object_pages
            + stats.large_pages
            + stats.huge_pages
            + stats.dirty_pages
            + self.limits.moving
            + self.limits.lost
            + self.limits.elsewhere
            + self.records.reserved_bytes() / PAGE_SIZE
    }

    /// What of it would stay if all free pages went back.
    fn in_use(&self) -> usize {
        self.committed() - self.stats.dirty_pages - self.limits.moving
    }

    /// Whether so many pages more may be committed. Also none at all may be too many: where a free has joined two
    /// dirty spans, what is clean between them counts as dirty, and who is given it makes it so.
    #[inline]
    pub(crate) fn may_commit(&self, pages: usize) -> bool {
        self.limits.hard == usize::MAX || self.beyond(pages) == 0
    }

    /// By how many pages the hard limit would be exceeded with `pages` more.
    #[cold]
    fn beyond(&self, pages: usize) -> usize {
        self.committed().saturating_add(pages).saturating_sub(self.limits.hard)
    }

    /// Somebody takes a span into his hands to give pages of it back: so many committed ones are nobody's for a while. What this
    /// returns he gives to [`end_move`](Self::end_move).
    pub(crate) fn begin_move(&mut self, span: &Span, committed: usize) -> Move {
        let limits = &mut self.limits;
        let this = Move { committed, pages: span.pages(), turn: limits.turn };
        limits.moving += committed;
        limits.moves[this.turn & 1] += 1;
        limits.in_hand += this.pages;
        this
    }

    /// The end of it. What has not gone back is counted elsewhere again.
    pub(crate) fn end_move(&mut self, this: Move) {
        let limits = &mut self.limits;
        // Who has forked in the middle of it is counted with those who do not exist.
        if limits.turn.wrapping_sub(this.turn) > 1 {
            limits.lost -= this.committed;
            return;
        }
        limits.moving -= this.committed;
        limits.moves[this.turn & 1] -= 1;
        limits.in_hand -= this.pages;
    }

    /// Pages of spans that somebody has in his hands.
    pub(crate) fn in_hand(&self) -> usize {
        self.limits.in_hand
    }

    /// Free dirty pages that the soft limit wants to go back.
    fn above_soft(&self) -> usize {
        if self.limits.soft == usize::MAX {
            return 0;
        }
        self.committed().saturating_sub(self.limits.soft).min(self.stats.dirty_pages)
    }

    pub(crate) fn moving_pages(&self) -> usize {
        self.limits.moving + self.limits.lost
    }

    pub(crate) fn refused(&self) -> usize {
        self.limits.refused
    }
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Finds out whether there is any limit. While there is, nothing begins to wait.
    fn note_limits(&self, inner: &mut Inner) {
        inner.limits.note_any();
        self.waiting.close(inner.limits.any);
        if self.waiting.any() {
            self.return_waiting(inner);
        }
    }

    /// Sets the hard limit: bytes that may be resident, as the crate's documentation of limits counts them;
    /// 0 for none. Returns the one before. What is in use already stays; allocations that need more pages fail
    /// until enough has been freed.
    pub fn set_hard_limit(&self, bytes: usize) -> usize {
        let mut inner = self.inner.lock();
        inner.limits.hard = pages_within(bytes);
        self.note_limits(&mut inner);
        core::mem::replace(&mut inner.limits.hard_bytes, bytes)
    }

    /// Sets the soft limit, from which on free pages go back as soon as they are free; 0 for none. Returns the
    /// one before.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn set_soft_limit(&self, bytes: usize) -> usize {
        let mut inner = self.inner.lock();
        inner.limits.soft = pages_within(bytes);
        self.note_limits(&mut inner);
        inner.worth_a_thought = if bytes == 0 { KEEP + 1 } else { 0 };
        let before = core::mem::replace(&mut inner.limits.soft_bytes, bytes);
        self.relieve(inner);
        before
    }

    /// The hard limit in bytes, 0 if there is none.
    pub fn hard_limit(&self) -> usize {
        self.inner.lock().limits.hard_bytes
    }

    /// Bytes that count against the limits at this moment.
    pub fn committed_bytes(&self) -> usize {
        self.inner.lock().committed() * PAGE_SIZE
    }

    /// Whether more is committed than the soft limit; one load, a moment old.
    #[inline]
    pub fn is_tight(&self) -> bool {
        // Relaxed: a hint.
        self.tight.load(Ordering::Relaxed)
    }

    /// Whether the hard limit would let `bytes` bytes more be committed if all free pages went back.
    pub fn has_room(&self, bytes: usize) -> bool {
        let inner = self.inner.lock();
        inner.in_use().saturating_add(bytes.div_ceil(PAGE_SIZE)) <= inner.limits.hard
    }

    /// Bytes that count against the limits and that nobody could give back.
    pub fn in_use_bytes(&self) -> usize {
        self.inner.lock().in_use() * PAGE_SIZE
    }

    /// Pages of the spans of which somebody is giving some back at this moment; of free ones they are the heap's as well.
    pub fn in_hand_pages(&self) -> usize {
        self.inner.lock().in_hand()
    }

    /// Whether `bytes` bytes are within the hard limit at all.
    pub fn may_ever_have(&self, bytes: usize) -> bool {
        bytes.div_ceil(PAGE_SIZE) <= self.inner.lock().limits.hard
    }

    /// How many allocations the hard limit has refused.
    pub fn refusals(&self) -> usize {
        self.inner.lock().refused()
    }

    /// In the child of a fork, under no lock: what threads were giving back is not given back here, unless it is this one that was.
    pub fn forget_moving(&self) {
        let limits = &mut self.inner.lock().limits;
        limits.lost += core::mem::take(&mut limits.moving);
        (limits.moves, limits.in_hand) = ([0; 2], 0);
        limits.turn = limits.turn.wrapping_add(2);
        // Nor does anybody look here who was asked to.
        self.waiting.forget_watch();
    }

    /// After pages were committed or freed: says whether there are more than the soft limit, and gives back
    /// free ones if so. Gives the lock up.
    #[inline]
    pub(crate) fn mind_soft_limit<'a>(&'a self, inner: MutexGuard<'a, R, Inner>) {
        if inner.limits.soft != usize::MAX {
            self.relieve(inner);
        }
    }

    /// After a span was cut, where more is committed than the soft limit: what is cached above goes back, and what
    /// is free.
    #[cold]
    #[inline(never)]
    pub(crate) fn relieve_after_cut(&self) {
        if let Some(relief) = self.relief {
            relief();
        }
        self.relieve(self.inner.lock());
    }

    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn relieve<'a>(&'a self, inner: MutexGuard<'a, R, Inner>) {
        self.note(&inner);
        let mut excess = inner.above_soft();
        drop(inner);
        while excess > 0 {
            match self.release_step(excess, true) {
                Some(pages) => excess = excess.saturating_sub(pages),
                None => break,
            }
        }
    }

    /// Finds out and says whether more is committed than the soft limit.
    #[inline]
    pub(crate) fn note_soft_limit(&self, inner: &Inner) -> bool {
        inner.limits.soft != usize::MAX && self.note(inner)
    }

    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn note(&self, inner: &Inner) -> bool {
        let tight = inner.committed() > inner.limits.soft;
        if tight != self.is_tight() {
            // Relaxed, under the lock: a hint.
            self.tight.store(tight, Ordering::Relaxed);
        }
        tight
    }

    /// Makes it possible to cut `pages` pages, which has failed: by room under the hard limit, if that is what is
    /// missing, else by a region of `region` pages. `before` is what [`reserved_bytes`](Self::reserved_bytes) was when it
    /// was tried. `true`: it is worth another try.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn provide(&self, pages: usize, region: usize, before: usize) -> bool {
        // A region is clean, so all of what is cut from it will count.
        let fits = self.inner.lock().may_commit(pages);
        if fits { self.grow(region, before) } else { self.make_room(pages) }
    }

    /// Counts a huge allocation, or a part of one, before it is made, if the hard limit allows. Above the soft
    /// limit others give way to it once it is there; whoever does not make it says so to
    /// [`uncommit_huge`](Self::uncommit_huge).
    pub(crate) fn commit_huge(&self, pages: usize) -> bool {
        loop {
            let mut inner = self.inner.lock();
            if inner.may_commit(pages) {
                inner.stats.huge_pages += pages;
                return true;
            }
            drop(inner);
            if !self.make_room(pages) {
                return false;
            }
        }
    }

    pub(crate) fn uncommit_huge(&self, pages: usize) {
        let mut inner = self.inner.lock();
        inner.stats.huge_pages -= pages;
        self.mind_soft_limit(inner);
    }

    /// Counts pages that the caller is about to make resident and that are none of the heap's, if the hard limit
    /// allows. `false`: it does not.
    ///
    /// Cost: the lock.
    pub fn commit_elsewhere(&self, pages: usize) -> bool {
        loop {
            let mut inner = self.inner.lock();
            if inner.may_commit(pages) {
                inner.limits.elsewhere += pages;
                self.note_soft_limit(&inner);
                return true;
            }
            drop(inner);
            if !self.make_room(pages) {
                return false;
            }
        }
    }

    /// Such pages are not resident any more.
    pub fn uncommit_elsewhere(&self, pages: usize) {
        let mut inner = self.inner.lock();
        inner.limits.elsewhere -= pages;
        self.mind_soft_limit(inner);
    }

    /// Gives free dirty pages back until `pages` more may be committed. `false`: there are not enough, and
    /// nobody is giving any back either. `true`: it is worth another try.
    #[cold]
    pub(crate) fn make_room(&self, pages: usize) -> bool {
        let mut waited = 0;
        loop {
            let mut inner = self.inner.lock();
            if inner.may_commit(pages) {
                return true;
            }
            if self.waiting.any() {
                self.return_waiting(&mut inner);
            }
            let over = inner.beyond(pages);
            let (dirty, moving) = (inner.stats.dirty_pages, inner.limits.moving);
            // What could not help is left where it is.
            let hopeless = over > dirty + moving;
            if hopeless || waited == PATIENCE {
                inner.limits.refused += 1;
                return false;
            }
            drop(inner);
            if self.release_step(over.max(AT_ONCE), true).is_some() {
                continue;
            }
            if moving == 0 {
                waited = PATIENCE;
                continue;
            }
            // Others have it in their hands.
            waited += 1;
            pause();
        }
    }

    /// Waits until those have put their spans down who are giving pages of them back at this moment, for some 200 ms at
    /// most: for when addresses run out, and what they have may be all that is free. Returns whether there was anybody. Who cuts the end off
    /// a mapping is not among them.
    #[cold]
    pub fn await_others(&self) -> bool {
        let (mut awaited, mut any) = (None, false);
        for _ in 0..PATIENCE {
            let mut inner = self.inner.lock();
            let limits = &mut inner.limits;
            let next = limits.turn.wrapping_add(1);
            if awaited.is_none() && limits.moves[next & 1] == 0 {
                awaited = Some(limits.turn);
                limits.turn = next;
            }
            // A turn later nobody was left of it either.
            let done =
                |turn: usize| limits.turn.wrapping_sub(turn) > 1 || limits.moves[turn & 1] == 0;
            if awaited.is_some_and(done) {
                break;
            }
            any = true;
            drop(inner);
            pause();
        }
        any
    }
}

/// Lets others do their work.
fn pause() {
    #[cfg(not(tiermalloc_loom))]
    tiermalloc_sync::sys::sleep(1);
    #[cfg(tiermalloc_loom)]
    tiermalloc_sync::spin_hint();
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_of_whole_pages_with_their_part_of_the_map() {
        let page = PAGE_SIZE + MAP_BYTES;
        let limits = [0, 1, page - 1, page, 2 * page - 1, 2 * page];
        assert_eq!(limits.map(pages_within), [usize::MAX, 0, 0, 1, 1, 2]);
    }
}
