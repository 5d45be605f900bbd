//! Where huge pages are asked for, and where they are not.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ops::Range;

use support::arena::{Arena, PAGE};
use support::model::{SMALL_LEAF, SMALL_ROOT, boxed_map};
use support::{Heap, free, large};
use tiermalloc_page_heap::PageHeap;
use tiermalloc_size_class::class_of;

/// Pages of a huge page: 2 MiB.
const BLOCK: usize = 256;
/// Pages in use from which on fresh blocks are asked for: 8 MiB.
const GATE: usize = 1024;

/// A heap over a source of 64 MiB with huge pages, of whose object spans so many bytes are untouched.
fn with_blocks(untouched: fn() -> usize, test: impl FnOnce(&Heap, &Arena)) {
    let arena = Arena::new(8192, 4096, 11);
    arena.set_block(BLOCK * PAGE);
    let map = boxed_map::<SMALL_ROOT, SMALL_LEAF>();
    let heap: Heap = PageHeap::new(&map, &arena).with_untouched(untouched);
    test(&heap, &arena);
}

/// Takes spans of 8 pages until the heap has so many pages in use.
fn fill_up(heap: &Heap, pages: usize) -> Vec<usize> {
    let mut spans = Vec::new();
    while heap.stats().large_pages < pages {
        spans.push(large(heap, 8));
    }
    spans
}

fn whole_blocks(range: &Range<usize>) -> bool {
    range.start % BLOCK == 0 && range.end % BLOCK == 0 && !range.is_empty()
}

/// Pages of the arena of a span.
fn pages_at(arena: &Arena, address: usize, pages: usize) -> Range<usize> {
    let first = address / PAGE - arena.base_page();
    first..first + pages
}

#[test]
fn a_small_heap_asks_for_nothing_and_a_large_one_for_each_block_once_before_it_is_used() {
    with_blocks(
        || 0,
        |heap, arena| {
            let few = fill_up(heap, GATE);
            assert_eq!(arena.take_advice(), [], "{} spans", few.len());
            let mut asked = Vec::new();
            let mut used: Vec<_> = few.iter().map(|&at| pages_at(arena, at, 8)).collect();
            while heap.stats().large_pages < 6 * GATE {
                let span = pages_at(arena, large(heap, 8), 8);
                for (range, full) in arena.take_advice() {
                    assert!(full && whole_blocks(&range), "{range:?} {full}");
                    let apart =
                        |other: &Range<usize>| range.end <= other.start || other.end <= range.start;
                    assert!(
                        used.iter().chain(&asked).all(apart),
                        "{range:?} is in use, or was asked for"
                    );
                    assert!(!apart(&span), "{range:?} is not begun");
                    asked.push(range);
                }
                used.push(span);
            }
            let blocks: usize = asked.iter().map(|range| range.len() / BLOCK).sum();
            // The ends of regions are not whole blocks.
            assert!(blocks * BLOCK > 3 * GATE, "{blocks}");
        },
    );
}

#[test]
fn objects_that_are_not_touched_are_no_reason() {
    with_blocks(
        || 3 << 19,
        |heap, arena| {
            let class = class_of(1024, 8).expect("a class");
            while heap.stats().object_pages < 2 * GATE {
                heap.alloc_objects(class).expect("memory");
            }
            // 1.5 MiB of 16 are too much, of 24 not.
            let asked: usize = arena.take_advice().iter().map(|(range, _)| range.len()).sum();
            assert_eq!(asked, 0);
            while heap.stats().object_pages < 5 * GATE {
                heap.alloc_objects(class).expect("memory");
            }
            let asked: usize = arena.take_advice().iter().map(|(range, _)| range.len()).sum();
            assert!(asked > GATE, "{asked}");
        },
    );
}

#[test]
fn under_a_hard_limit_nothing_is_asked_for() {
    with_blocks(
        || 0,
        |heap, arena| {
            heap.set_hard_limit(60 << 20);
            fill_up(heap, 4 * GATE);
            assert_eq!(arena.take_advice(), []);
        },
    );
}

/// Takes and frees an allocation of 3 blocks in a place that has never been used; what was asked for.
fn long(heap: &Heap, arena: &Arena) -> Vec<(Range<usize>, bool)> {
    let at = large(heap, 4 * BLOCK);
    let advice = arena.take_advice();
    free(heap, at);
    heap.release_pages(usize::MAX);
    advice
}

/// Whether that was for this allocation.
fn is_for_it(advice: &[(Range<usize>, bool)]) -> bool {
    advice.iter().any(|(range, full)| *full && whole_blocks(range))
}

#[test]
fn a_long_allocation_is_filled_once_such_ones_have_been_and_one_in_eight_is_not() {
    with_blocks(
        || 0,
        |heap, arena| {
            arena.set_resident(true);
            assert!(!is_for_it(&long(heap, arena)));
            assert!(!is_for_it(&long(heap, arena)));
            let filled: Vec<bool> = (0..32).map(|_| is_for_it(&long(heap, arena))).collect();
            assert_eq!(filled.iter().filter(|&&filled| filled).count(), 28, "{filled:?}");
            // Those that are not show that the program has changed its ways.
            arena.set_resident(false);
            (0..40).for_each(|_| drop(long(heap, arena)));
            assert!((0..16).all(|_| !is_for_it(&long(heap, arena))));
        },
    );
}

#[test]
fn allocations_that_stay_are_looked_at_when_the_next_comes() {
    with_blocks(
        || 0,
        |heap, arena| {
            let asks = || {
                large(heap, 3 * BLOCK);
                is_for_it(&arena.take_advice())
            };
            // Not yet touched: they may yet be.
            assert!(!asks() && !asks() && !asks());
            arena.set_resident(true);
            assert!(!asks(), "one is full");
            assert!(asks(), "two are");
        },
    );
}

#[test]
fn what_goes_back_goes_in_whole_blocks_and_is_not_to_be_filled() {
    with_blocks(
        || 0,
        |heap, arena| {
            let mut spans = fill_up(heap, 4 * GATE);
            arena.take_advice();
            // All but every 40th, so that there are blocks without a free end.
            let mut n = 0;
            spans.retain(|&at| {
                n += 1;
                if n % 40 != 0 {
                    free(heap, at);
                }
                n % 40 == 0
            });
            let dirty = heap.stats().dirty_pages;
            assert_eq!(heap.release_pages(usize::MAX), dirty);
            let advice = arena.take_advice();
            assert!(!advice.is_empty());
            assert!(advice.iter().all(|(range, full)| !full && whole_blocks(range)), "{advice:?}");
            let kept: Vec<_> = spans.iter().map(|&at| pages_at(arena, at, 8)).collect();
            assert!(kept.len() > 10);
        },
    );
}
