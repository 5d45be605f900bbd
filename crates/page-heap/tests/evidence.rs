//! Long allocations are made of huge pages where such ones have been filled.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::arena::{Arena, PAGE};
use support::blocks::*;
use support::{Heap, free, large};

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
