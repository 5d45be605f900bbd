//! Who sees to it that idle memory goes back: the heap itself, or a keeper, who is asked now and then, looks,
//! and gives back step by step.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::arena::Arena;
use support::model::{SMALL_LEAF, SMALL_ROOT, boxed_map};
use support::{Heap, free, large, with_heap};
use tiermalloc_page_heap::{Look, PageHeap};

/// Idle and dirty pages of a look.
fn look(heap: &Heap) -> (usize, usize) {
    let Look { idle, dirty, .. } = heap.look();
    (idle, dirty)
}

/// Spans of so many pages each that do not touch each other when they are freed, and what keeps them apart.
fn apart(heap: &Heap, pages: &[usize]) -> (Vec<usize>, Vec<usize>) {
    pages.iter().map(|&pages| (large(heap, pages), large(heap, 1))).unzip()
}

#[test]
fn a_look_says_what_nobody_has_wanted_since_the_last_one() {
    with_heap(2048, 4096, |heap, _| {
        let (spans, others) = apart(heap, &[300, 200, 100]);
        assert_eq!(look(heap), (0, 0));
        spans.iter().for_each(|&at| free(heap, at));
        assert_eq!(look(heap), (0, 600), "it has come since");
        assert_eq!(look(heap), (600, 600));
        // The least of it counts, however short.
        let again = large(heap, 250);
        assert_eq!(heap.stats().dirty_pages, 350);
        free(heap, again);
        assert_eq!(look(heap), (350, 600));
        // Also where an allocation grows into it.
        // SAFETY: the span is ours.
        assert!(unsafe { heap.resize_large(others[1], 61) }, "the pages behind it are free");
        assert_eq!(heap.stats().dirty_pages, 540);
        free(heap, others[1]);
        let dirty = heap.stats().dirty_pages;
        assert_eq!(look(heap), (540, dirty));
        // What has gone back is not idle any more.
        let released = heap.release_pages(400);
        assert_eq!(look(heap), (dirty - released, dirty - released));
        [others[0], others[2]].into_iter().for_each(|at| free(heap, at));
    });
}

#[test]
fn a_step_is_one_call_for_about_as_much_as_is_wanted() {
    with_heap(2048, 4096, |heap, arena| {
        let (spans, others) = apart(heap, &[300, 40, 5]);
        spans.iter().for_each(|&at| free(heap, at));
        let mut left = 345;
        let mut step = |wanted, any, expected: Option<usize>| {
            let calls = arena.calls();
            assert_eq!(heap.release_step(wanted, any), expected, "{wanted} of {left}");
            assert_eq!(arena.calls() - calls, usize::from(expected.is_some()));
            left -= expected.unwrap_or(0);
            assert_eq!(heap.stats().dirty_pages, left);
        };
        // Out of the longest, a part of it; never less than is worth a call; a whole one at most.
        step(100, false, Some(100));
        step(1, false, Some(8));
        step(500, false, Some(192));
        step(500, true, Some(40));
        // 5 pages are not worth a call, but for those who insist.
        step(500, false, None);
        step(2, true, Some(2));
        step(2, true, Some(2));
        step(2, true, Some(1));
        step(2, true, None);
        others.into_iter().for_each(|at| free(heap, at));
    });
}

#[test]
fn a_step_of_a_source_that_refuses_changes_nothing() {
    with_heap(2048, 4096, |heap, arena| {
        let at = large(heap, 300);
        free(heap, at);
        let before = heap.stats();
        arena.refuse(support::arena::Refusals::Bits(u64::MAX));
        assert_eq!(heap.release_step(100, true), None);
        arena.refuse(support::arena::Refusals::Never);
        assert_eq!((heap.stats().dirty_pages, heap.stats().free_pages), (300, before.free_pages));
        // It is not tried again until the span has changed.
        let part = large(heap, 10);
        free(heap, part);
        assert_eq!(heap.release_step(100, true), Some(100));
    });
}

/// A heap over an arena whose keeper is this.
fn with_keeper(keeper: fn() -> bool, test: impl FnOnce(&Heap, &Arena)) {
    let arena = Arena::new(4096, 4096, 11);
    let map = boxed_map::<SMALL_ROOT, SMALL_LEAF>();
    let heap: Heap = PageHeap::new(&map, &arena).with_keeper(keeper);
    test(&heap, &arena);
}

/// Frees a page so many times.
fn frees(heap: &Heap, count: usize) {
    for _ in 0..count {
        let at = large(heap, 1);
        free(heap, at);
    }
}

#[test]
fn the_keeper_is_asked_after_some_of_the_frees_while_2_mib_or_more_are_there_to_give_back() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    with_keeper(
        || ASKED.fetch_add(1, Ordering::Relaxed) < usize::MAX,
        |heap, _| {
            let asked = || ASKED.swap(0, Ordering::Relaxed);
            let few = large(heap, 255);
            free(heap, few);
            frees(heap, 100);
            assert_eq!((asked(), heap.stats().dirty_pages), (0, 255), "too little");
            let many = large(heap, 256);
            free(heap, many);
            frees(heap, 1700);
            assert!((99..=101).contains(&asked()), "once in 17 frees");
            // Nothing is dirty any more: nobody is asked.
            heap.release_pages(usize::MAX);
            frees(heap, 1700);
            assert_eq!(asked(), 0);
        },
    );
}

#[test]
fn while_the_keeper_says_yes_the_heap_takes_no_looks_and_when_not_it_does() {
    static WILL: AtomicBool = AtomicBool::new(true);
    with_keeper(
        || WILL.load(Ordering::Relaxed),
        |heap, arena| {
            let big = large(heap, 1000);
            free(heap, big);
            let gone = || heap.stats().decommitted_pages;
            let time_passes = |times: usize| {
                for _ in 0..times {
                    arena.pass_time(150);
                    frees(heap, 40);
                }
            };
            time_passes(20);
            assert_eq!(gone(), 0, "it is the keeper's");
            // He looks himself: the heap's own looks begin anew after that.
            assert_eq!(look(heap), (0, 1000));
            assert_eq!(look(heap), (1000, 1000));
            WILL.store(false, Ordering::Relaxed);
            time_passes(1);
            assert_eq!(gone(), 0, "nothing to compare with yet");
            time_passes(1);
            assert!((300..=500).contains(&gone()), "half of what is idle: {}", gone());
            time_passes(20);
            assert!(gone() > 850, "{}", gone());
            // The heap has looked by now, but somebody else later: no look of its own right after that.
            let big = large(heap, 1000);
            free(heap, big);
            look(heap);
            let before = gone();
            time_passes(1);
            assert_eq!(gone(), before);
            time_passes(1);
            assert!(gone() > before + 300, "{} {before}", gone());
            // And again he will.
            WILL.store(true, Ordering::Relaxed);
            let big = large(heap, 1000);
            free(heap, big);
            let before = gone();
            time_passes(20);
            assert_eq!(gone(), before);
        },
    );
}

#[test]
fn the_keeper_is_asked_without_a_lock() {
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HEAP: std::cell::Cell<Option<&'static Heap<'static>>> = const { std::cell::Cell::new(None) };
    }
    with_keeper(
        || {
            let heap = HEAP.with(std::cell::Cell::get).expect("set before use");
            // Each of these takes the lock of the heap.
            heap.look();
            STEPS.fetch_add(heap.release_step(64, true).unwrap_or(0), Ordering::Relaxed);
            true
        },
        |heap, _| {
            // SAFETY: no longer than the heap is there.
            HEAP.set(Some(unsafe { &*std::ptr::from_ref(heap).cast() }));
            let big = large(heap, 1000);
            free(heap, big);
            frees(heap, 100);
            assert!(STEPS.load(Ordering::Relaxed) >= 5 * 64);
            HEAP.set(None);
        },
    );
}
