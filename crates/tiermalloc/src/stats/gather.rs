//! The one look at all tiers.

use tiermalloc_size_class::{Class, PAGE_SIZE, SLOTS};
use tiermalloc_sync::Patience;
use tiermalloc_thread_cache::ThreadCache;

use super::{ClassStats, Stats, ThreadStats};
use crate::pools::Beside;
use crate::state::{CENTRAL, REGISTRY, heap};
use crate::thread::{self, CACHE_BYTES};
use crate::{fork, parked, pools};

/// Objects of each class, by id.
type ByClass = [u32; SLOTS];

fn add_cached(to: &mut ByClass, cache: &ThreadCache) -> usize {
    let mut bytes = 0;
    for class in Class::all() {
        let objects = cache.cached(class);
        to[class.id()] += objects as u32;
        bytes += objects * class.size();
    }
    bytes
}

/// Looks at all tiers, from the threads down, and tells of each thread and each class on the way; with
/// `survey` also at the spans that have free objects. What has left a tier before it is looked at and had not
/// yet come to the one before counts as live.
///
/// Whoever has endless patience also takes in what a fork has left behind, which else counts as live.
pub(super) fn gather(
    survey: bool,
    patience: &mut Patience,
    each_thread: &mut dyn FnMut(ThreadStats),
    each_class: &mut dyn FnMut(ClassStats),
) -> Stats {
    if patience.is_endless() {
        fork::adopt_all();
    }
    let mut stats = Stats::default();
    let (mut in_threads, mut in_parked, mut in_quarantine) = ([0; SLOTS], [0; SLOTS], [0; SLOTS]);
    let mut missed = |seen: bool| stats.missed += usize::from(!seen);
    let (mut threads, mut waiting) = (0, 0);
    missed(REGISTRY.for_each_within(patience, |cache| {
        threads += 1;
        let cached = add_cached(&mut in_threads, cache);
        let ((thread, refills, flushes), (limit, room)) = (cache.activity(), cache.bounds());
        each_thread(ThreadStats { thread, cached, room, limit, refills, flushes });
    }));
    missed(parked::for_each(patience, |cache| {
        waiting += 1;
        add_cached(&mut in_parked, cache);
    }));
    // Before the central cache is asked: what leaves meanwhile counts as nothing twice.
    missed(pools::held(patience, |class| in_quarantine[class.id()] += 1));
    let mut untouched = 0;
    for class in Class::all() {
        let id = class.id();
        let cached = [in_threads[id], in_parked[id], in_quarantine[id]].map(|n| n as usize);
        match class_stats(class, cached, survey, patience) {
            Some(of_class) => {
                add_class(&mut stats, &of_class);
                untouched += of_class.untouched;
                each_class(of_class);
            }
            None => stats.missed += 1,
        }
    }
    stats.threads = threads;
    stats.counts.threads_ever = thread::ever();
    stats.counts.forks = fork::count();
    stats.lock_waits.registry = u64::from(REGISTRY.waits());
    add_pages(&mut stats, (threads + waiting) * CACHE_BYTES, patience);
    stats.committed = stats.committed.saturating_sub(untouched);
    match pools::beside(patience) {
        Some(beside) => add_beside(&mut stats, &beside),
        None => stats.missed += 1,
    }
    stats
}

/// What the guarded pool has beside the heap. Closed pages, and what is open around an object, are addresses that
/// nobody has.
fn add_beside(stats: &mut Stats, beside: &Beside) {
    stats.live += beside.live;
    stats.live_objects += beside.live_blocks;
    stats.quarantine += beside.waiting;
    stats.metadata += beside.metadata;
    stats.metadata_free += beside.metadata_free;
    stats.mapped += beside.mapped;
    stats.committed += beside.open + beside.touched;
    let named = beside.live + beside.waiting + beside.metadata + beside.metadata_free;
    stats.free_clean += beside.mapped.saturating_sub(named);
}

/// What there is of a class, given the objects of it that threads, caches that wait and the quarantine hold.
fn class_stats(
    class: Class,
    [in_threads, in_parked, in_quarantine]: [usize; 3],
    survey: bool,
    patience: &mut Patience,
) -> Option<ClassStats> {
    let counts = CENTRAL.counts(class, survey, patience)?;
    // What moved meanwhile may be counted in two places: never more than there is.
    let mut left = counts.out;
    let mut part = |objects: usize| {
        let part = objects.min(left);
        left -= part;
        part
    };
    let transfer_objects = part(counts.transfer);
    let thread_objects = part(in_threads);
    let parked_objects = part(in_parked);
    let quarantine_objects = part(in_quarantine);
    let inside = (counts.spans * class.objects()).saturating_sub(counts.out);
    let fresh_objects = counts.survey.never_taken.min(inside);
    Some(ClassStats {
        id: class.id(),
        size: class.size(),
        slack_most: class.slack_most(),
        objects_per_span: class.objects(),
        pages_per_span: class.pages(),
        batch: class.batch(),
        live_objects: left,
        thread_objects,
        parked_objects,
        transfer_objects,
        quarantine_objects,
        free_objects: inside - fresh_objects,
        fresh_objects,
        spans: counts.spans,
        span_bytes: counts.spans * class.pages() * PAGE_SIZE,
        tail_waste: counts.spans * class.tail_waste(),
        untouched: counts.survey.untouched_pages * PAGE_SIZE,
        occupancy: counts.survey.by_eighths.map(|spans| spans as u32),
        refills: counts.fetches,
        refilled_objects: counts.fetched,
        transfer_hits: counts.transfer_hits,
        flushes: counts.stores,
        flushed_objects: counts.stored,
        drained_batches: counts.drained,
        transfer_waits: counts.transfer_waits.into(),
        span_waits: counts.span_waits.into(),
    })
}

fn add_class(stats: &mut Stats, class: &ClassStats) {
    stats.live += class.live_objects * class.size;
    stats.live_objects += class.live_objects;
    stats.slack_most += class.live_objects * class.slack_most;
    stats.thread_caches += class.thread_objects * class.size;
    stats.parked_caches += class.parked_objects * class.size;
    stats.transfer_caches += class.transfer_objects * class.size;
    stats.quarantine += class.quarantine_objects * class.size;
    stats.spans += class.spans;
    let counts = &mut stats.counts;
    counts.refills += class.refills;
    counts.refilled_objects += class.refilled_objects;
    counts.transfer_hits += class.transfer_hits;
    counts.flushes += class.flushes;
    counts.flushed_objects += class.flushed_objects;
    counts.drained_batches += class.drained_batches;
    stats.lock_waits.transfer += class.transfer_waits;
    stats.lock_waits.spans += class.span_waits;
}

/// The page heap's part, of which threads' caches take so many bytes.
fn add_pages(stats: &mut Stats, caches: usize, patience: &mut Patience) {
    let Some(pages) = heap().stats_within(patience) else {
        stats.missed += 1;
        return;
    };
    let objects = stats.live
        + stats.thread_caches
        + stats.parked_caches
        + stats.transfer_caches
        + stats.quarantine;
    let Some((kept, touched)) = CENTRAL.kept_within(patience) else {
        stats.missed += 1;
        return;
    };
    // Empty spans that the central cache keeps are free pages to everybody else.
    stats.span_free = (pages.object_pages * PAGE_SIZE).saturating_sub(objects + kept);
    stats.large = (pages.large_pages * PAGE_SIZE).saturating_sub(caches);
    stats.large_count = pages.large_spans.saturating_sub(caches / CACHE_BYTES);
    stats.huge = pages.huge_pages * PAGE_SIZE;
    stats.huge_count = pages.huge_spans;
    stats.live += stats.large + stats.huge;
    stats.live_objects += stats.large_count + stats.huge_count;
    stats.free_dirty = pages.dirty_pages * PAGE_SIZE + touched;
    stats.free_clean = (pages.free_pages - pages.dirty_pages) * PAGE_SIZE + kept - touched;
    stats.metadata = pages.record_live_bytes + caches;
    stats.metadata_free = pages.record_bytes - pages.record_live_bytes;
    stats.mapped = pages.reserved_pages * PAGE_SIZE + stats.huge + pages.record_bytes;
    stats.committed = stats.mapped.saturating_sub(stats.free_clean + pages.record_untouched_bytes);
    let counts = &mut stats.counts;
    counts.regions = pages.grown;
    counts.region_bytes = pages.grown_pages * PAGE_SIZE;
    counts.decommits = pages.decommits;
    counts.decommitted = pages.decommitted_pages * PAGE_SIZE;
    counts.unmaps = pages.unmaps;
    counts.unmapped = pages.unmapped_pages * PAGE_SIZE;
    counts.huge_made = pages.huge_made;
    counts.huge_returned = pages.huge_returned_pages * PAGE_SIZE;
    counts.returned = counts.decommitted + counts.unmapped + counts.huge_returned;
    stats.lock_waits.pages = u64::from(pages.lock_waits);
}
