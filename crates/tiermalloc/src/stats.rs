//! What the heap holds.

use tiermalloc_page_heap::HeapStats;
use tiermalloc_size_class::{CLASSES, Class, PAGE_SIZE};

use crate::state::{CENTRAL, REGISTRY, heap};
use crate::thread::CACHE_BYTES;
use crate::{parked, pools};

/// A snapshot of the process's heap, in bytes. It is put together tier by tier while other threads go
/// on, so sums may be off by what moved meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// In the program's hands, rounded up to size classes and pages.
    pub live: usize,
    /// In threads' caches.
    pub thread_caches: usize,
    /// In transfer caches.
    pub transfer_caches: usize,
    /// Freed objects that wait in the quarantine of the hardened pool, or of the guarded one.
    pub quarantine: usize,
    /// Free objects and tails in spans that also hold live ones.
    pub span_free: usize,
    /// Free pages that may be resident.
    pub free_dirty: usize,
    /// Free pages that are not resident.
    pub free_clean: usize,
    /// Records, page map apart, and threads' caches themselves.
    pub metadata: usize,
    /// In huge allocations, each a mapping of its own. Part of `live`.
    pub huge: usize,
    /// Number of huge allocations.
    pub huge_count: usize,
    /// Addresses taken from the system: regions, huge allocations and records.
    pub mapped: usize,
    /// Threads with a cache.
    pub threads: usize,
}

/// What the heap holds at this moment.
///
/// Cost: one lock after the other, 208 times two; microseconds.
pub fn stats() -> Stats {
    let mut cached = [0usize; CLASSES + 1];
    let mut threads = 0;
    REGISTRY.for_each(|cache| {
        threads += 1;
        for class in Class::all() {
            cached[class.id()] += cache.cached(class);
        }
    });
    let mut waiting = 0;
    parked::for_each(|cache| {
        waiting += 1;
        for class in Class::all() {
            cached[class.id()] += cache.cached(class);
        }
    });
    let pages: HeapStats = heap().stats();
    let mut stats = Stats { threads, ..Stats::default() };
    let mut objects = 0;
    // Before the central cache is asked: what leaves meanwhile counts as nothing twice.
    stats.quarantine = pools::held();
    for class in Class::all() {
        let per_class = CENTRAL.stats(class);
        let transfer = per_class.transfer.min(per_class.out);
        let cached = cached[class.id()].min(per_class.out - transfer);
        stats.thread_caches += cached * class.size();
        stats.transfer_caches += transfer * class.size();
        stats.live += (per_class.out - transfer - cached) * class.size();
        objects += per_class.out * class.size();
    }
    stats.live = stats.live.saturating_sub(stats.quarantine);
    let caches = (threads + waiting) * CACHE_BYTES;
    let large = (pages.large_pages * PAGE_SIZE).saturating_sub(caches);
    stats.huge = pages.huge_pages * PAGE_SIZE;
    stats.huge_count = pages.huge_spans;
    stats.live += large + stats.huge;
    stats.span_free = (pages.object_pages * PAGE_SIZE).saturating_sub(objects);
    stats.free_dirty = pages.dirty_pages * PAGE_SIZE;
    stats.free_clean = (pages.free_pages - pages.dirty_pages) * PAGE_SIZE;
    stats.metadata = pages.record_live_bytes + caches;
    stats.mapped = pages.reserved_pages * PAGE_SIZE + stats.huge + pages.record_bytes;
    let beside = pools::beside();
    stats.live += beside.live;
    stats.quarantine += beside.waiting;
    stats.metadata += beside.metadata;
    stats.mapped += beside.mapped;
    stats
}
