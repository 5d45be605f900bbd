//! What the heap holds, in pages.

use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
#[cfg(not(tiermalloc_loom))]
use tiermalloc_sync::{CountsWaits, Patience};

/// A snapshot of the heap, taken under its lock. Pages are of 8 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// Pages of all regions taken from the source and not given back.
    pub reserved_pages: usize,
    /// Pages of free spans.
    pub free_pages: usize,
    /// Pages of free spans that may be resident.
    pub dirty_pages: usize,
    /// Pages of object spans.
    pub object_pages: usize,
    /// Pages of large allocations.
    pub large_pages: usize,
    /// Number of large allocations.
    pub large_spans: usize,
    /// Pages of huge allocations, which are not among the reserved ones.
    pub huge_pages: usize,
    /// Number of huge allocations.
    pub huge_spans: usize,
    /// How many of these stand between guard pages.
    pub guarded_spans: usize,
    /// Bytes reserved for records.
    pub record_bytes: usize,
    /// Of these, bytes of pages that nobody has touched.
    pub record_untouched_bytes: usize,
    /// Bytes of records in use.
    pub record_live_bytes: usize,
    /// Regions taken since the start.
    pub grown: usize,
    /// Pages of these regions.
    pub grown_pages: usize,
    /// Pages given back to the operating system since the start, addresses kept.
    pub decommitted_pages: usize,
    /// Pages that are being given back at this moment, or were by a thread that a fork has cut off.
    pub moving_pages: usize,
    /// Pages that count against the limits.
    pub committed_pages: usize,
    /// Allocations that the hard limit has refused since the start.
    pub refused: usize,
    /// System calls that gave them back.
    pub decommits: usize,
    /// Pages of regions given back since the start, addresses and all.
    pub unmapped_pages: usize,
    /// System calls that gave them back.
    pub unmaps: usize,
    /// Huge allocations made since the start.
    pub huge_made: usize,
    /// Pages of huge allocations that went back since the start, with their mapping or a part of it.
    pub huge_returned_pages: usize,
    /// How often somebody found the heap's lock taken; 0 where locks do not count that.
    pub lock_waits: u32,
}

impl HeapStats {
    pub(crate) const fn new() -> Self {
        Self {
            reserved_pages: 0,
            free_pages: 0,
            dirty_pages: 0,
            object_pages: 0,
            large_pages: 0,
            large_spans: 0,
            huge_pages: 0,
            huge_spans: 0,
            guarded_spans: 0,
            record_bytes: 0,
            record_untouched_bytes: 0,
            record_live_bytes: 0,
            grown: 0,
            grown_pages: 0,
            decommitted_pages: 0,
            moving_pages: 0,
            committed_pages: 0,
            refused: 0,
            decommits: 0,
            unmapped_pages: 0,
            unmaps: 0,
            huge_made: 0,
            huge_returned_pages: 0,
            lock_waits: 0,
        }
    }
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// What the heap holds at this moment.
    pub fn stats(&self) -> HeapStats {
        of(&self.inner.lock(), self.waiting.count())
    }
}

#[cfg(not(tiermalloc_loom))]
impl<R: RawLock + CountsWaits, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// [`stats`](Self::stats) with how often the lock was found taken, for somebody whose patience may end:
    /// then `None`.
    pub fn stats_within(&self, patience: &mut Patience) -> Option<HeapStats> {
        let inner = tiermalloc_sync::lock_within(&self.inner, patience)?;
        let lock_waits = tiermalloc_sync::waits(&self.inner);
        Some(HeapStats { lock_waits, ..of(&inner, self.waiting.count()) })
    }
}

/// The figures, of which `waiting` spans and pages are free although the heap counts them as large.
fn of(inner: &Inner, (spans, pages): (usize, usize)) -> HeapStats {
    let stats = &inner.stats;
    HeapStats {
        free_pages: stats.free_pages + pages,
        dirty_pages: stats.dirty_pages + pages,
        large_pages: stats.large_pages.saturating_sub(pages),
        large_spans: stats.large_spans.saturating_sub(spans),
        record_bytes: inner.records.reserved_bytes(),
        record_untouched_bytes: inner.records.untouched_bytes(),
        record_live_bytes: inner.records.live_bytes(),
        moving_pages: inner.moving_pages(),
        committed_pages: inner.committed(),
        refused: inner.refused(),
        ..inner.stats
    }
}
