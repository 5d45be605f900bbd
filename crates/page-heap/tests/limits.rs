//! What the limits promise: what counts, what is refused, what goes back for it, and how fast the rest goes.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::arena::{PAGE, Refusals};
use support::{Heap, free, large, with_heap};
use tiermalloc_page_heap::Gone;
use tiermalloc_size_class::Class;

/// Pages of one chunk of records.
const CHUNK: usize = 16;

/// A hard limit of so many pages and a chunk of records.
fn limit(heap: &Heap, pages: usize) {
    heap.set_hard_limit((pages + CHUNK) * (PAGE + 9));
}

fn refused(heap: &Heap, pages: usize) {
    let before = heap.refusals();
    assert!(heap.alloc_large(pages, 1).is_none());
    assert_eq!(heap.refusals(), before + 1);
}

#[test]
fn nothing_counts_before_it_is_somebodys() {
    with_heap(2048, 4096, |heap, _| {
        assert_eq!(heap.committed_bytes(), 0);
        let at = large(heap, 10);
        assert!(heap.stats().reserved_pages > 100);
        assert_eq!(heap.committed_bytes(), (10 + CHUNK) * PAGE);
        free(heap, at);
        assert_eq!(
            (heap.committed_bytes(), heap.in_use_bytes()),
            ((10 + CHUNK) * PAGE, CHUNK * PAGE)
        );
        heap.release_pages(10);
        assert_eq!(heap.committed_bytes(), CHUNK * PAGE);
        heap.alloc_huge(100 * PAGE, 1).unwrap();
        heap.alloc_guarded(10 * PAGE, 1).unwrap();
        assert_eq!(heap.committed_bytes(), (110 + CHUNK) * PAGE, "guards are nobody's");
    });
}

#[test]
fn the_last_page_within_the_limit_is_given_and_the_next_one_is_not() {
    with_heap(2048, 4096, |heap, _| {
        limit(heap, 100);
        let spans: Vec<usize> = (0..10).map(|_| large(heap, 10)).collect();
        refused(heap, 1);
        assert!(heap.alloc_objects(Class::from_id(64).unwrap()).is_none());
        assert!(heap.alloc_huge(PAGE, 1).is_none());
        assert!(heap.alloc_guarded(PAGE, 1).is_none());
        assert_eq!(heap.stats().reserved_pages, 128, "no region was taken for what was refused");
        free(heap, spans[3]);
        refused(heap, 11);
        let again = large(heap, 10);
        assert_eq!(again, spans[3]);
        // Without one there is enough.
        heap.set_hard_limit(0);
        large(heap, 100);
    });
}

#[test]
fn dirty_pages_elsewhere_go_back_for_what_is_wanted_here_and_no_more_than_that() {
    with_heap(4096, 4096, |heap, arena| {
        limit(heap, 400);
        let (one, _between, two) = (large(heap, 100), large(heap, 1), large(heap, 200));
        let _behind = large(heap, 1);
        free(heap, one);
        free(heap, two);
        assert_eq!(heap.stats().dirty_pages, 300);
        // Neither is long enough: 250 clean pages, for which 152 dirty ones are too many.
        let calls = arena.calls();
        large(heap, 250);
        assert!(arena.calls() > calls);
        assert_eq!(heap.stats().decommitted_pages, 152);
        assert_eq!(heap.committed_bytes(), (400 + CHUNK) * PAGE);
        // What would not be enough is left alone.
        let dirty = heap.stats().dirty_pages;
        refused(heap, 250);
        assert_eq!(heap.stats().dirty_pages, dirty);
    });
}

#[test]
fn a_source_that_keeps_what_is_dirty_ends_the_search_for_room() {
    with_heap(4096, 4096, |heap, arena| {
        limit(heap, 300);
        let one = large(heap, 200);
        let _between = large(heap, 1);
        free(heap, one);
        arena.refuse(Refusals::Bits(u64::MAX));
        refused(heap, 250);
        arena.refuse(Refusals::Never);
        large(heap, 250);
    });
}

#[test]
fn blocks_that_grow_where_they_are_keep_to_the_limit() {
    with_heap(4096, 4096, |heap, _| {
        limit(heap, 100);
        let at = large(heap, 50);
        // SAFETY: the spans are ours.
        unsafe {
            assert!(!heap.resize_large(at, 101));
            assert!(heap.resize_large(at, 100));
            assert!(heap.resize_large(at, 60));
            assert_eq!(heap.committed_bytes(), (100 + CHUNK) * PAGE, "the end is dirty");
            let huge = heap.alloc_huge(30 * PAGE, 1).unwrap().as_ref().address();
            assert_eq!(heap.resize_huge(huge, 41 * PAGE), None);
            let huge = heap.resize_huge(huge, 40 * PAGE).unwrap();
            refused(heap, 1);
            let huge = heap.resize_huge(huge, 20 * PAGE).unwrap();
            let small = large(heap, 20);
            heap.free_large(huge).unwrap();
            free(heap, small);
        }
        assert_eq!(heap.in_use_bytes(), (60 + CHUNK) * PAGE);
    });
}

#[test]
fn what_is_clean_between_two_dirty_spans_is_not_given_beyond_the_limit() {
    with_heap(4096, 4096, |heap, _| {
        let whole = large(heap, 300);
        free(heap, whole);
        heap.release_pages(300);
        limit(heap, 200);
        let (one, two, three) = (large(heap, 100), large(heap, 50), large(heap, 50));
        free(heap, two);
        heap.release_pages(50);
        // Another takes its place under the limit.
        let other = heap.alloc_huge(50 * PAGE, 1).unwrap();
        free(heap, one);
        free(heap, three);
        assert_eq!(heap.stats().dirty_pages, 200, "the hole counts");
        assert!(heap.committed_bytes() > (200 + CHUNK) * PAGE);
        large(heap, 150);
        assert!(heap.committed_bytes() <= (200 + CHUNK) * PAGE);
        // SAFETY: ours, and not used any more.
        unsafe { heap.free_large(other.as_ref().address()) }.unwrap();
    });
}

#[test]
fn a_limit_below_what_is_in_use_takes_nothing_and_gives_nothing() {
    with_heap(4096, 4096, |heap, _| {
        let spans: Vec<usize> = (0..10).map(|_| large(heap, 20)).collect();
        limit(heap, 100);
        refused(heap, 1);
        spans[..5].iter().for_each(|&at| free(heap, at));
        refused(heap, 1);
        free(heap, spans[5]);
        large(heap, 20);
        assert!(heap.committed_bytes() <= (100 + CHUNK) * PAGE);
    });
}

#[test]
fn above_the_soft_limit_free_pages_go_back_with_the_free() {
    with_heap(4096, 4096, |heap, _| {
        let kept = large(heap, 100);
        let spans: Vec<usize> = (0..10).map(|_| large(heap, 20)).collect();
        heap.set_soft_limit((150 + CHUNK) * (PAGE + 9));
        assert!(heap.is_tight());
        for (n, &at) in spans.iter().enumerate() {
            free(heap, at);
            let used = 300 - 20 * (n + 1);
            assert_eq!(heap.is_tight(), used > 150);
            assert_eq!(heap.committed_bytes(), (used.max(150) + CHUNK) * PAGE, "{n}");
        }
        // Below it all stays; one that is set later acts at once.
        assert_eq!(heap.stats().dirty_pages, 50);
        heap.set_soft_limit((110 + CHUNK) * (PAGE + 9));
        assert_eq!((heap.stats().dirty_pages, heap.is_tight()), (10, false));
        // Whoever takes clean pages gives dirty ones for them.
        heap.alloc_huge(30 * PAGE, 1).unwrap();
        assert_eq!((heap.stats().dirty_pages, heap.is_tight()), (0, true));
        heap.set_soft_limit(0);
        assert!(!heap.is_tight());
        free(heap, kept);
        assert_eq!(heap.stats().dirty_pages, 100);
    });
}

#[test]
fn an_allocation_that_cannot_be_made_takes_nothing_from_others() {
    with_heap(4096, 4096, |heap, _| {
        let at = large(heap, 100);
        free(heap, at);
        heap.set_soft_limit((150 + CHUNK) * (PAGE + 9));
        // A mapping or nothing, for which there is no memory.
        assert!(heap.alloc_guarded(5000 * PAGE, 1).is_none());
        assert_eq!((heap.stats().dirty_pages, heap.is_tight()), (100, false));
        heap.alloc_guarded(120 * PAGE, 1).unwrap();
        assert_eq!((heap.stats().dirty_pages, heap.is_tight()), (30, false));
    });
}

#[test]
fn what_a_fork_has_cut_off_counts_on_and_nobody_waits_for_it() {
    with_heap(2048, 4096, |heap, _| {
        limit(heap, 100);
        heap.forget_moving();
        assert_eq!(heap.stats().moving_pages, 0);
        large(heap, 100);
        refused(heap, 1);
    });
}

#[test]
fn idle_pages_go_as_fast_as_the_rate_allows_and_others_as_they_are_asked_for() {
    with_heap(4096, 4096, |heap, arena| {
        // 100 pages in a second, looks every 100 ms.
        heap.set_pace(100, 100 * PAGE);
        let at = large(heap, 2000);
        free(heap, at);
        arena.pass_time(10_000);
        assert_eq!(
            heap.release_idle_step(1000, true),
            Gone::Pages(10),
            "what a look's time brings"
        );
        assert_eq!(heap.release_idle_step(1000, true), Gone::NotNow);
        arena.pass_time(50);
        assert_eq!(heap.release_idle_step(1000, false), Gone::NotNow, "5 are not worth a call");
        assert_eq!(heap.release_idle_step(3, true), Gone::Pages(3));
        assert_eq!(heap.release_idle_step(3, true), Gone::Pages(2));
        let mut gone = 0;
        for _ in 0..20 {
            arena.pass_time(100);
            gone += heap.release_idle(1000);
        }
        assert_eq!(gone, 200, "two seconds");
        assert!(heap.is_paced());
        // Somebody asks: at once, and the whole span.
        assert_eq!(heap.release_pages(500), 1785);
        heap.set_pace(100, 0);
        assert!(!heap.is_paced());
        free(heap, large(heap, 1000));
        assert_eq!(heap.release_idle_step(600, false), Gone::Pages(600));
        assert_eq!(heap.release_idle_step(600, false), Gone::Pages(400));
        assert_eq!(heap.release_idle_step(600, false), Gone::Nothing);
    });
}
