//! Where huge pages are asked for, and where they are not: for small objects, and when memory goes back.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ops::Range;

use support::blocks::*;
use support::{free, large};
use tiermalloc_size_class::class_of;

#[test]
fn a_small_heap_asks_for_nothing_and_a_large_one_for_each_block_once_before_it_is_used() {
    with_blocks(|heap, arena| {
        let mut used: Vec<_> =
            fill_up(heap, small(), GATE, 100).iter().map(|span| pages_of(arena, span)).collect();
        assert_eq!(arena.take_advice(), []);
        let mut blocks: Vec<Range<usize>> = Vec::new();
        while heap.stats().object_pages < 6 * BULK {
            let next = heap.stats().object_pages + 1;
            for span in fill_up(heap, small(), next, 100) {
                let span = pages_of(arena, span);
                for (range, full) in arena.take_advice() {
                    assert!(full && whole_blocks(&range), "{range:?} {full}");
                    let apart =
                        |other: &Range<usize>| range.end <= other.start || other.end <= range.start;
                    assert!(
                        used.iter().chain(&blocks).all(apart),
                        "{range:?} was used, or asked for"
                    );
                    assert!(!apart(&span), "{range:?} is not begun");
                    blocks.push(range);
                }
                used.push(span);
            }
        }
        // The ends of regions are not whole blocks.
        let pages: usize = blocks.iter().map(Range::len).sum();
        assert!(pages > 3 * BULK, "{pages}");
    });
}

/// What goes a little beyond what it was once is no reason for 2 MiB more.
#[test]
fn a_heap_that_has_not_grown_for_a_while_begins_a_block_as_it_is() {
    with_blocks(|heap, arena| {
        fill_up(heap, small(), 3 * BULK, 100);
        let advice = asked(&arena.take_advice());
        assert!(advice >= BULK, "{advice}");
        // Not quite so long.
        arena.pass_time(499);
        fill_up(heap, small(), 3 * BULK + BLOCK, 100);
        assert_eq!(asked(&arena.take_advice()), BLOCK);
        arena.pass_time(500);
        fill_up(heap, small(), 3 * BULK + 2 * BLOCK, 100);
        assert_eq!(asked(&arena.take_advice()), 0);
        fill_up(heap, small(), 3 * BULK + 4 * BLOCK, 100);
        assert!(asked(&arena.take_advice()) >= BLOCK, "it grows");
    });
}

#[test]
fn the_rest_of_a_block_counts_as_dirty_and_is_used_next() {
    with_blocks(|heap, arena| {
        fill_up(heap, small(), BULK, 100);
        let mut seen = 0;
        while heap.stats().object_pages < 5 * BULK {
            let before = heap.stats();
            let next = heap.stats().object_pages + 1;
            let spans = fill_up(heap, small(), next, 100);
            let advice = arena.take_advice();
            let [span] = &spans[..] else { panic!("one at a time") };
            let pages = pages_of(arena, span);
            let dirty = heap.stats().dirty_pages;
            if let [(block, true)] = &advice[..] {
                assert_eq!(dirty, block.end.saturating_sub(pages.end), "{block:?} {pages:?}");
                seen += 1;
            } else if before.dirty_pages >= pages.len() {
                assert_eq!(dirty, before.dirty_pages - pages.len());
            }
        }
        assert!(seen > 8, "{seen}");
        assert_eq!(heap.release_pages(usize::MAX), heap.stats().decommitted_pages);
        assert_eq!(heap.stats().dirty_pages, 0);
    });
}

#[test]
fn objects_that_are_not_touched_are_no_reason() {
    for (share, reason) in [(3, false), (6, true)] {
        with_blocks(|heap, arena| {
            fill_up(heap, small(), 5 * BULK, share);
            assert_eq!(asked(&arena.take_advice()) > 0, reason, "one in {share}");
        });
    }
}

#[test]
fn nor_are_longer_ones_or_allocations_of_pages_which_may_be_touched_here_and_there_only() {
    with_blocks(|heap, arena| {
        let longer = class_of(8400, 8).expect("a class");
        fill_up(heap, longer, 3 * BULK, 100);
        assert_eq!(arena.take_advice(), [], "it is not asked for these");
    });
    with_blocks(|heap, arena| {
        let just = class_of(8192, 8).expect("a class");
        fill_up(heap, just, 2 * BULK, 100);
        assert!(asked(&arena.take_advice()) > 0, "but for these");
    });
    with_blocks(|heap, arena| {
        fill_up(heap, small(), 2 * BULK, 100);
        arena.take_advice();
        let mut stacks = Vec::new();
        while heap.stats().large_pages < 2 * BULK {
            stacks.push(large(heap, 64));
        }
        fill_up(heap, small(), 4 * BULK, 100);
        assert_eq!(arena.take_advice(), [], "too much else is in use");
        stacks.into_iter().for_each(|stack| free(heap, stack));
        fill_up(heap, small(), 7 * BULK, 10);
        assert!(asked(&arena.take_advice()) > 0, "no longer");
    });
}

#[test]
fn longer_ones_are_where_nearly_all_is_small_and_touched() {
    for (share, reason) in [(6, false), (100, true)] {
        with_blocks(|heap, arena| {
            fill_up(heap, small(), 4 * BULK, share);
            assert!(asked(&arena.take_advice()) > 0);
            let longer = class_of(10_000, 8).expect("a class");
            fill_up(heap, longer, 4 * BULK + 300, share);
            assert_eq!(asked(&arena.take_advice()) > 0, reason, "one in {share}");
        });
    }
}

#[test]
fn one_long_allocation_spoils_one_block_and_no_more() {
    with_blocks(|heap, arena| {
        let table = large(heap, 2 * BULK);
        // SAFETY: live, and ours.
        assert!(unsafe { heap.resize_large(table, 2 * BULK - 10) });
        fill_up(heap, small(), 2 * BULK, 100);
        assert!(asked(&arena.take_advice()) > 0);
        free(heap, table);
    });
}

#[test]
fn under_a_hard_limit_nothing_is_asked_for() {
    with_blocks(|heap, arena| {
        heap.set_hard_limit(60 << 20);
        fill_up(heap, small(), 4 * BULK, 100);
        assert_eq!(arena.take_advice(), []);
    });
}

#[test]
fn what_goes_back_goes_in_whole_blocks_and_is_not_to_be_filled_again() {
    with_blocks(|heap, arena| {
        let spans = fill_up(heap, small(), 5 * BULK, 100);
        let filled: Vec<_> = arena.take_advice().into_iter().map(|(range, _)| range).collect();
        // All but every 40th, so that there are blocks without a free end.
        for (n, span) in spans.iter().enumerate() {
            if n % 40 != 0 {
                // SAFETY: the span is ours alone; all its objects come back, having been used.
                unsafe {
                    let mut objects = Vec::new();
                    span.take_objects(usize::MAX, |object, _| objects.push(object));
                    for object in objects {
                        span.put_object(object);
                    }
                    heap.free_objects((*span).into());
                }
            }
        }
        let dirty = heap.stats().dirty_pages;
        assert_eq!(heap.release_pages(usize::MAX), dirty);
        let advice = arena.take_advice();
        assert!(advice.len() > 3);
        for (range, full) in advice {
            assert!(!full && whole_blocks(&range), "{range:?}");
            let in_one = |page| filled.iter().any(|filled| filled.contains(&page));
            assert!(range.clone().all(in_one), "{range:?} was never filled");
        }
        assert_eq!(heap.release_pages(usize::MAX), 0);
        assert_eq!(arena.take_advice(), [], "once");
    });
}
