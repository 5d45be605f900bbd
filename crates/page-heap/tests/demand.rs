//! Where huge pages are asked for, and where they are not.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::cell::Cell;
use std::ops::Range;

use support::arena::{Arena, PAGE};
use support::model::{SMALL_LEAF, SMALL_ROOT, boxed_map};
use support::{Heap, free, large};
use tiermalloc_page_heap::{PageHeap, Span};
use tiermalloc_size_class::{Class, STAGGER, class_of};

/// Pages of a huge page: 2 MiB.
const BLOCK: usize = 256;
/// Pages of small objects from which on fresh blocks are asked for: 4 MiB.
const GATE: usize = 512;
/// Pages of which a test fills some times as many.
const BULK: usize = 1024;

type Advice = Vec<(Range<usize>, bool)>;

thread_local! {
    /// Bytes of small objects that have been handed out at one time.
    static TOUCHED: Cell<usize> = const { Cell::new(0) };
}

/// A heap over a source of 64 MiB with huge pages.
fn with_blocks(test: impl FnOnce(&Heap, &Arena)) {
    let arena = Arena::new(8192, 4096, 11);
    arena.set_block(BLOCK * PAGE);
    let map = boxed_map::<SMALL_ROOT, SMALL_LEAF>();
    TOUCHED.set(0);
    let touched = |size| {
        assert_eq!(size, 8192 + STAGGER);
        TOUCHED.get()
    };
    let heap: Heap = PageHeap::new(&map, &arena).with_touched(touched);
    test(&heap, &arena);
}

fn small() -> Class {
    class_of(1000, 8).expect("a class")
}

/// Object spans until the heap has so many pages of them. Of each `share` parts one stays untouched.
fn fill_up(heap: &Heap, class: Class, pages: usize, share: usize) -> Vec<&'static Span> {
    let mut spans = Vec::new();
    while heap.stats().object_pages < pages {
        // SAFETY: the record stays while the heap does, which is as long as the test.
        spans.push(unsafe { heap.alloc_objects(class).expect("memory").as_ref() });
        if class.size() <= 8192 + STAGGER {
            TOUCHED.set(TOUCHED.get() + class.pages() * PAGE / share * (share - 1));
        }
    }
    spans
}

fn whole_blocks(range: &Range<usize>) -> bool {
    range.start % BLOCK == 0 && range.end % BLOCK == 0 && !range.is_empty()
}

fn asked(advice: &Advice) -> usize {
    advice.iter().filter(|(_, full)| *full).map(|(range, _)| range.len()).sum()
}

/// Pages of the arena of a span.
fn pages_of(arena: &Arena, span: &Span) -> Range<usize> {
    let first = span.start() - arena.base_page();
    first..first + span.pages()
}

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

/// The page of the arena where an allocation starts.
fn page_of(arena: &Arena, at: usize) -> usize {
    at / PAGE - arena.base_page()
}

/// Writes into every `each`th page of the system's.
fn write(at: usize, pages: usize, each: usize) {
    for page in (0..pages * 2).step_by(each) {
        // SAFETY: callers pass an allocation of theirs.
        unsafe { ((at + page * 4096 + 4000) as *mut u8).write(1) };
    }
}

/// Takes an allocation of so many blocks in a place that has never been used, writes into every `each`th page, and
/// frees it. Whether pages were asked for.
fn long(heap: &Heap, arena: &Arena, blocks: usize, each: usize) -> bool {
    let at = large(heap, blocks * BLOCK);
    let advice = arena.take_advice();
    assert!(advice.iter().all(|(range, full)| *full && whole_blocks(range)), "{advice:?}");
    let first = page_of(arena, at);
    let last = first + blocks * BLOCK;
    assert!(advice.iter().all(|(range, _)| first <= range.start), "not before");
    let end = if blocks < 4 { last } else { last.next_multiple_of(BLOCK) };
    assert!(advice.iter().all(|(range, _)| range.end <= end), "no further");
    write(at, blocks * BLOCK, each);
    free(heap, at);
    heap.release_pages(usize::MAX);
    arena.take_advice();
    !advice.is_empty()
}

#[test]
fn a_long_allocation_is_filled_once_such_ones_have_been_and_one_in_sixteen_is_not() {
    with_blocks(|heap, arena| {
        assert!(!long(heap, arena, 3, 1));
        let filled: Vec<_> = (0..30).map(|_| long(heap, arena, 3, 1)).collect();
        assert_eq!(filled.iter().filter(|filled| **filled).count(), 29, "{filled:?}");
        assert_eq!((0..64).filter(|_| long(heap, arena, 3, 1)).count(), 60);
        assert!(!long(heap, arena, 13, 1), "more than four times as long");
        // Those that are not show that the program has changed its ways.
        assert!((0..16).filter(|_| long(heap, arena, 4, 40)).count() < 16);
        assert!((0..32).all(|_| !long(heap, arena, 4, 40)));
    });
}

#[test]
fn the_newest_tells_where_none_was_freed() {
    for (each, told) in [(1, true), (2, false)] {
        with_blocks(|heap, arena| {
            let first = large(heap, 3 * BLOCK);
            assert_eq!(arena.take_advice(), []);
            write(first, 3 * BLOCK, each);
            large(heap, 4 * BLOCK);
            assert_eq!(asked(&arena.take_advice()) > 0, told, "one page in {each}");
        });
    }
}

#[test]
fn the_newest_tells_of_all_its_pages_when_it_has_grown_or_shrunk() {
    for (to, written, told) in [(6, 3, false), (6, 6, true), (2, 2, true)] {
        with_blocks(|heap, arena| {
            one_free_span(heap, arena, 20 * BLOCK);
            let first = large(heap, 3 * BLOCK);
            // SAFETY: ours; of what it loses nothing is used.
            assert!(unsafe { heap.resize_large(first, to * BLOCK) });
            write(first, written * BLOCK, 1);
            large(heap, 4 * BLOCK);
            assert_eq!(asked(&arena.take_advice()) > 0, told, "{written} of {to} written");
        });
    }
}

#[test]
fn the_newest_tells_nothing_when_it_is_no_longer_than_a_block() {
    for pages in [1, 2, 8, 11, BLOCK / 2, BLOCK - 1] {
        with_blocks(|heap, arena| {
            one_free_span(heap, arena, 20 * BLOCK);
            let first = large(heap, 3 * BLOCK);
            write(first, 3 * BLOCK, 1);
            // SAFETY: ours, and its end is not used any more.
            assert!(unsafe { heap.resize_large(first, pages) });
            large(heap, 3 * BLOCK);
            assert_eq!(arena.take_advice(), [], "{pages} pages");
        });
    }
}

#[test]
fn what_doubles_is_filled_each_time() {
    with_blocks(|heap, arena| {
        one_free_span(heap, arena, 27 * BLOCK);
        let mut old = large(heap, 2 * BLOCK);
        write(old, 2 * BLOCK, 1);
        for blocks in [4, 8, 12] {
            let new = large(heap, blocks * BLOCK);
            assert!(asked(&arena.take_advice()) >= (blocks - 1) * BLOCK, "{blocks} blocks");
            free(heap, old);
            heap.release_pages(usize::MAX);
            arena.take_advice();
            // One page of each huge one, and it may be any.
            write(new + 3 * PAGE, blocks * BLOCK - 3, 256);
            old = new;
        }
    });
}

#[test]
fn one_that_was_filled_and_is_hardly_begun_speaks_against_others() {
    // Written: all blocks, all but one of eight, all but two; and of less than two whole ones nothing is said.
    for (blocks, written, told) in
        [(9, 9, true), (9, 8, true), (9, 6, false), (16, 8, false), (2, 0, true)]
    {
        with_blocks(|heap, arena| {
            one_free_span(heap, arena, 24 * BLOCK);
            assert!(!long(heap, arena, 9, 1));
            let at = large(heap, blocks * BLOCK);
            assert!(asked(&arena.take_advice()) > 0);
            if written > 0 {
                write(at, written * BLOCK, 1);
            }
            free(heap, at);
            heap.release_pages(usize::MAX);
            arena.take_advice();
            large(heap, 2 * BLOCK);
            assert_eq!(asked(&arena.take_advice()) > 0, told, "{written} of {blocks}");
        });
    }
}

/// A mapping of so many bytes, which is written to in every `each`th page and then grows. What was asked for.
fn grow(heap: &Heap, arena: &Arena, from: usize, each: usize, to: usize) -> Advice {
    // SAFETY: just allocated.
    let at = unsafe { heap.alloc_huge(from, PAGE).expect("memory").as_ref() }.address();
    assert_eq!(arena.take_advice(), []);
    write(at, from / PAGE, each);
    // SAFETY: ours, and the old place is not used any more.
    let at = unsafe { heap.resize_huge(at, to) }.expect("memory");
    let advice = arena.take_advice();
    free(heap, at);
    for (range, full) in &advice {
        assert_eq!((range.len(), *full), (to / PAGE, true), "all of it");
    }
    advice
}

#[test]
fn a_mapping_that_grows_is_filled_if_it_was_full() {
    const MIB: usize = 1 << 20;
    for (from, each, to, told) in [
        (8 * MIB, 1, 16 * MIB, true),
        (4 * MIB, 1, 16 * MIB, true),
        // Half of it; too short; much more; and no power of two is passed.
        (8 * MIB, 2, 16 * MIB, false),
        (4 * MIB, 1, 16 * MIB - PAGE, false),
        (4 * MIB, 1, 16 * MIB + 4 * PAGE, false),
        (16 * MIB, 1, 32 * MIB - PAGE, false),
        (16 * MIB, 1, 32 * MIB, true),
    ] {
        with_blocks(|heap, arena| {
            assert_eq!(!grow(heap, arena, from, each, to).is_empty(), told, "{from} to {to}");
            heap.set_hard_limit(60 << 20);
            assert_eq!(grow(heap, arena, from, each, to), [], "under a limit");
        });
    }
}

#[test]
fn what_was_filled_as_it_grew_tells_nothing() {
    with_blocks(|heap, arena| {
        assert!(!long(heap, arena, 1, 1));
        // More than four times as long: the newest one that is left as it is, until it grows.
        let bytes = 5 * BLOCK * PAGE;
        // SAFETY: just allocated.
        let at = unsafe { heap.alloc_huge(bytes, PAGE).expect("memory").as_ref() }.address();
        write(at, 5 * BLOCK, 1);
        assert_eq!(arena.take_advice(), []);
        // SAFETY: ours, and the old place is not used any more.
        unsafe { heap.resize_huge(at, 8 * BLOCK * PAGE).expect("memory") };
        assert_eq!(asked(&arena.take_advice()), 8 * BLOCK);
        // Nearly half of it is empty: that would say that nothing is known.
        large(heap, 3 * BLOCK);
        assert!(asked(&arena.take_advice()) > 0);
    });
}

#[test]
fn who_fills_everything_is_told_nothing_of_what_grows() {
    const MIB: usize = 1 << 20;
    with_blocks(|heap, arena| {
        arena.fills_unasked.set(true);
        assert_eq!(grow(heap, arena, 8 * MIB, 1, 16 * MIB), []);
        assert!(!long(heap, arena, 2, 1));
        // SAFETY: just allocated.
        let at = unsafe { heap.alloc_huge(4 * MIB, PAGE).expect("memory").as_ref() }.address();
        assert_eq!(arena.take_advice().len(), 1, "what is made is asked for");
        // SAFETY: ours, and the old place is not used any more.
        unsafe { heap.resize_huge(at, 5 * MIB).expect("memory") };
        assert_eq!(arena.take_advice(), [], "and not given up as it grows");
    });
}

/// A mapping is filled as far as was said when it was made, or four times what it was full of when it grew; not for ever,
/// though the system would.
#[test]
fn a_mapping_that_grows_further_is_not_filled_any_more() {
    const MIB: usize = 1 << 20;
    with_blocks(|heap, arena| {
        // SAFETY: just allocated.
        let at = unsafe { heap.alloc_huge(4 * MIB, PAGE).expect("memory").as_ref() }.address();
        write(at, 4 * MIB / PAGE, 1);
        let mut at = at;
        for (to, said) in [(16, Some(true)), (17, Some(false)), (18, None)] {
            // SAFETY: ours, and the old place is not used any more.
            at = unsafe { heap.resize_huge(at, to * MIB) }.expect("memory");
            let advice = arena.take_advice();
            assert_eq!(advice.first().map(|(_, full)| *full), said, "{to} MiB");
            assert!(advice.iter().all(|(range, _)| range.len() == to * MIB / PAGE), "all of it");
        }
        free(heap, at);
    });
    with_blocks(|heap, arena| {
        // SAFETY: just allocated; and ours, and the old place is not used any more.
        let mut at = unsafe { heap.alloc_huge(8 * MIB, PAGE).expect("memory").as_ref() }.address();
        write(at, 8 * MIB / PAGE, 1);
        for (to, said) in [(16, true), (20, false)] {
            // SAFETY: as above.
            at = unsafe { heap.resize_huge(at, to * MIB) }.expect("memory");
            assert_eq!(!arena.take_advice().is_empty(), said, "{to} MiB, of up to 32");
        }
    });
    with_blocks(|heap, arena| {
        assert!(!long(heap, arena, 2, 1));
        // SAFETY: just allocated.
        let at = unsafe { heap.alloc_huge(4 * MIB, PAGE).expect("memory").as_ref() }.address();
        assert_eq!(arena.take_advice().len(), 1);
        // SAFETY: ours, and the old place is not used any more.
        unsafe { heap.resize_huge(at, 5 * MIB).expect("memory") };
        assert!(matches!(arena.take_advice()[..], [(_, false)]));
    });
}

#[test]
fn what_was_filled_and_freed_does_not_vouch_for_others_that_were() {
    with_blocks(|heap, arena| {
        let first = large(heap, 2 * BLOCK);
        write(first, 2 * BLOCK, 1);
        // Eight blocks may be filled on its word: three of them are, and freed.
        let begun = large(heap, 3 * BLOCK);
        write(begun, 3 * BLOCK, 1);
        free(heap, begun);
        heap.release_pages(usize::MAX);
        arena.take_advice();
        // Eight again; nobody touches them.
        let filled = (0..9).filter(|_| {
            large(heap, 2 * BLOCK);
            asked(&arena.take_advice()) > 0
        });
        assert_eq!(filled.count(), 4);
    });
}

#[test]
fn no_more_is_filled_than_four_times_what_was_dense() {
    with_blocks(|heap, arena| {
        let first = large(heap, 2 * BLOCK);
        write(first, 2 * BLOCK, 1);
        // They are not written to, as far as anybody sees.
        (0..4).for_each(|_| _ = large(heap, 5 * BLOCK));
        let filled = asked(&arena.take_advice());
        assert!((4 * BLOCK..=6 * BLOCK).contains(&filled), "{filled}");
    });
}

#[test]
fn what_has_told_tells_nothing_more() {
    with_blocks(|heap, arena| {
        let used = large(heap, 9 * BLOCK);
        let dense = large(heap, 2 * BLOCK);
        write(dense, 2 * BLOCK, 1);
        free(heap, used);
        // More than four times as long, and not fresh.
        for _ in 0..10 {
            let again = large(heap, 9 * BLOCK);
            assert_eq!(again, used);
            free(heap, again);
        }
        large(heap, 9 * BLOCK);
        assert_eq!(arena.take_advice(), []);
        (0..2).for_each(|_| _ = large(heap, 5 * BLOCK));
        let filled = asked(&arena.take_advice());
        assert!((4 * BLOCK..=6 * BLOCK).contains(&filled), "{filled}");
    });
}

#[test]
fn while_the_one_that_is_to_tell_is_empty_nobody_knows() {
    with_blocks(|heap, arena| {
        let one = large(heap, 2 * BLOCK);
        write(one, 2 * BLOCK, 1);
        let filled: Vec<_> = (0..6)
            .map(|_| {
                arena.take_advice();
                let at = large(heap, 2 * BLOCK);
                let filled = asked(&arena.take_advice()) > 0;
                (filled, at)
            })
            .collect();
        let flags: Vec<_> = filled.iter().map(|(filled, _)| *filled).collect();
        assert_eq!(flags, [true, true, true, true, false, false]);
        // The last one is.
        write(filled[5].1, 2 * BLOCK, 1);
        large(heap, 2 * BLOCK);
        assert!(asked(&arena.take_advice()) > 0);
    });
    // Nor where much was dense before.
    with_blocks(|heap, arena| {
        (0..40).for_each(|_| _ = long(heap, arena, 2, 1));
        let fills = || {
            let at = large(heap, 2 * BLOCK);
            let filled = asked(&arena.take_advice()) > 0;
            if filled {
                free(heap, at);
                heap.release_pages(usize::MAX);
                arena.take_advice();
            }
            filled
        };
        assert!((0..16).any(|_| !fills()), "one that is to tell");
        assert!((0..4).all(|_| !fills()));
    });
}

#[test]
fn what_lies_where_the_newest_was_tells_nothing() {
    with_blocks(|heap, arena| {
        let first = large(heap, 3 * BLOCK);
        free(heap, first);
        // As an allocation of many would be, one after the other.
        let pieces: Vec<_> = (0..24).map(|_| large(heap, BLOCK / 8)).collect();
        assert!(pieces.contains(&first), "dirty pages come first");
        pieces.iter().for_each(|&piece| write(piece, BLOCK / 8, 1));
        large(heap, 4 * BLOCK);
        assert_eq!(arena.take_advice(), []);
    });
}

/// One free span of so many pages at least, of which none is dirty.
fn one_free_span(heap: &Heap, arena: &Arena, pages: usize) {
    let all = large(heap, pages);
    free(heap, all);
    heap.release_pages(usize::MAX);
    arena.take_advice();
}

#[test]
fn from_8_mib_on_the_block_in_which_an_allocation_ends_is_filled_with_it() {
    for (pages, with) in [(4 * BLOCK - 10, false), (4 * BLOCK + 10, true)] {
        with_blocks(|heap, arena| {
            one_free_span(heap, arena, 12 * BLOCK);
            assert!(!long(heap, arena, 4, 1));
            let at = large(heap, pages);
            let end = page_of(arena, at) + pages;
            let advice = arena.take_advice();
            let [(range, true)] = &advice[..] else { panic!("{advice:?}") };
            assert_eq!(range.end > end, with, "{pages} pages: {range:?}");
            assert_eq!(heap.stats().dirty_pages, range.end.saturating_sub(end));
        });
    }
}

#[test]
fn a_hole_between_dirty_pages_is_filled_too_and_once() {
    with_blocks(|heap, arena| {
        one_free_span(heap, arena, 14 * BLOCK);
        let parts = [3, 8, 3].map(|blocks| large(heap, blocks * BLOCK));
        let [low, hole, high] = {
            let mut sorted = parts;
            sorted.sort_unstable();
            sorted
        };
        assert_eq!((hole - low, high - hole), (3 * BLOCK * PAGE, 8 * BLOCK * PAGE), "side by side");
        free(heap, hole);
        heap.release_pages(usize::MAX);
        write(low, 3 * BLOCK, 1);
        write(high, 3 * BLOCK, 1);
        free(heap, low);
        free(heap, high);
        for asks in [true, false] {
            let at = large(heap, 11 * BLOCK);
            assert!((low..high).contains(&at), "where it was");
            let advice = arena.take_advice();
            assert_eq!(asked(&advice) > 8 * BLOCK, asks, "{advice:?}");
            free(heap, at);
        }
    });
}

#[test]
fn what_others_have_left_in_used_pages_is_no_evidence() {
    with_blocks(|heap, arena| {
        // Fresh only the first time, when nothing is written.
        free(heap, large(heap, 2 * BLOCK));
        for _ in 0..20 {
            let at = large(heap, 2 * BLOCK);
            // SAFETY: ours.
            unsafe { (at as *mut u8).write_bytes(1, 2 * BLOCK * PAGE) };
            free(heap, at);
        }
        assert!(!long(heap, arena, 4, 1));
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
