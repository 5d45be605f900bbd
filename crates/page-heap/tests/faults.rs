//! A source that fails at every possible point in turn: no operation loses memory, panics or corrupts.
//!
//! The model checks everything after each step (`support/model.rs`); when a step meets one refusal, not
//! a page may be lost.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::arena::{Arena, PAGE, Refusals};
use support::model::{Model, SMALL_LEAF, SMALL_ROOT, Step, with_model};
use support::{
    free, free_span, is_one_free_span, is_whole, large, put_all, recarve, run, state_at, take,
    with_region,
};
use tiermalloc_page_heap::{Span, State};
use tiermalloc_size_class::{Class, class_of};

/// Every operation, each in more than one situation.
fn script() -> Vec<Step> {
    use Step::*;
    vec![
        AllocObjects(0), // 512 objects: free bits outside the record
        AllocObjects(207),
        TakeObjects(0, 100),
        AllocLarge { pages: 3, align: 1 },
        AllocLarge { pages: 40, align: 16 },
        AllocHuge { bytes: 32 * PAGE, align: 1 },
        AllocHuge { bytes: 37 * PAGE, align: 32 * PAGE },
        AllocLarge { pages: 140, align: 1 }, // more than a step
        Free(2),
        AllocObjects(64), // 1,024 objects of 8 bytes
        Resize(0, 20),
        Resize(1, 50),
        Resize(2, 90),
        Resize(2, 30),
        PutObjects(0, 50),
        Misuse(12_345),
        AllocLarge { pages: 9, align: 8 },
        Free(4),
        ReleasePages(10),
        AllocHuge { bytes: 50 * PAGE, align: 64 * PAGE },
        Free(3),
        PassTime(1000),
        Free(1),
        AllocLarge { pages: 150, align: 64 },
        ReleaseSome(20),
        ReleaseDownToWorth(9),
        ReleaseDownTo(5),
        Free(0),
        UnmapFree,
        AllocLarge { pages: 2, align: 1 },
        AllocHuge { bytes: 34 * PAGE, align: 1 },
        Resize(3, 120),
        Free(1),
        ReleasePages(usize::MAX),
        AllocObjects(150),
        UnmapFree,
        AllocLarge { pages: 33, align: 32 },
        AllocGuarded { bytes: 20 * PAGE, align: 1 },
        AllocGuarded { bytes: 5 * PAGE + 1, align: 16 * PAGE },
        Resize(7, 10),
        Free(8),
        Free(7),
        Free(6),
        Free(5),
        AllocRun(127, 40),
        Recarve(7, 9), // from none to 1,024 objects, and on
        Recarve(7, 64),
        TakeObjects(7, 3),
        Recarve(7, 1),
        AllocRun(64, 6),
        Recarve(9, 0),
        Free(8),
    ]
}

/// Runs the script with the calls refused for which `refused` says so, until none is reached.
fn fails_at_every_call(os_page: usize, roomy: bool, refused: impl Fn(usize) -> Refusals) {
    let mut calls = 0;
    for seed in [1, 0x1234_5678_9abc_def1] {
        for n in 0.. {
            let arena = Arena::new(2048, os_page, seed);
            let mut all = false;
            with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, roomy, |model| {
                arena.refuse(refused(n));
                script().iter().for_each(|step| model.step(step));
                all = arena.calls() <= n;
                // The source is well again, and nothing is missing.
                model.finish();
            });
            calls += 1;
            if all {
                break;
            }
        }
    }
    assert!(calls > 30, "{calls} points of failure: the script is not what it was");
}

#[test]
fn each_call_of_the_source_fails_once() {
    for os_page in [4096, 65536] {
        fails_at_every_call(os_page, true, |n| Refusals::Calls(n..n + 1));
    }
}

#[test]
fn each_call_of_the_source_fails_once_leaves_of_the_map_included() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..n + 1));
}

#[test]
fn three_calls_in_a_row_fail() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..n + 3));
}

#[test]
fn every_call_from_the_nth_on_fails_until_the_source_recovers() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..usize::MAX));
}

#[test]
fn a_span_without_room_for_its_bits_has_no_class_and_can_be_carved_again_or_freed() {
    let [inline, short, long] = [2048, 16, 8].map(|size| class_of(size, 8).unwrap());
    with_region(|heap, arena, at| {
        let (first, spares) = run(heap, inline, 2);
        let base = heap.stats().record_live_bytes;
        let fails = |span: &Span, class: Class| {
            arena.refuse(Refusals::Calls(0..usize::MAX));
            assert!(!recarve(heap, span, class));
            assert_eq!((span.state(), span.class()), (State::Objects, None));
            assert_eq!(take_none(span), 0, "no object of it is to be had");
            arena.refuse(Refusals::Never);
            assert_eq!(heap.stats().record_live_bytes, base);
        };
        // From none, from bits in the record, and from those of another pool, which are gone then.
        fails(spares[0], long);
        assert!(recarve(heap, spares[0], inline));
        fails(spares[0], short);
        assert!(recarve(heap, spares[0], short));
        put_all(spares[0], &take(spares[0], 1));
        fails(spares[0], long);
        assert!(!spares[0].was_zeroed(), "one object was out");
        assert!(recarve(heap, spares[0], long));
        is_whole(heap, spares[0], long);
        // The next one finds the chunk that this one has brought; freed at once, it is as it was.
        let all = [first, spares[0], spares[1]];
        all.into_iter().for_each(|span| free_span(heap, span));
        is_one_free_span(heap, at);
    });
    // Freed right after: its pages count if they were used, and if they were not, they do not.
    for used in [false, true] {
        with_region(|heap, arena, at| {
            let (first, spares) = run(heap, inline, 1);
            if used {
                assert!(recarve(heap, spares[0], inline));
                put_all(spares[0], &take(spares[0], 1));
            }
            arena.refuse(Refusals::Calls(0..usize::MAX));
            assert!(!recarve(heap, spares[0], long));
            free_span(heap, spares[0]);
            assert_eq!(heap.stats().dirty_pages, usize::from(used));
            free_span(heap, first);
            is_one_free_span(heap, at);
        });
    }
}

/// Objects that a span without a class hands out.
fn take_none(span: &Span) -> usize {
    // SAFETY: the span is ours alone.
    unsafe { span.take_objects(1, |_, _| {}) }
}

#[test]
fn a_run_that_gets_no_more_records_is_as_long_as_they_last_and_loses_nothing() {
    // What a chunk of records has room for: 128 KiB, the first of which is its own.
    const RECORDS: usize = 128 * 1024 / 64 - 1;
    let (class, more) = (class_of(2048, 8).unwrap(), 15);
    let arena = Arena::new(3072, 4096, 7);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        let hole = large(&model.heap, 64);
        let mut fillers = Vec::new();
        let records =
            |model: &Model<'_, SMALL_ROOT, SMALL_LEAF>| model.heap.stats().record_live_bytes / 64;
        while records(model) < RECORDS - 20 {
            fillers.push(model.heap.alloc_objects(class).unwrap());
        }
        free(&model.heap, hole);
        let mut free_at = hole;
        let mut served = [0; 2];
        for left in (0..=20).rev() {
            while records(model) < RECORDS - left {
                // The first page of the hole, and a record.
                fillers.push(model.heap.alloc_objects(class).unwrap());
                free_at += PAGE;
            }
            assert_eq!(model.heap.stats().record_bytes, 128 * 1024);
            let before = model.heap.stats();
            let pages = 64 - (free_at - hole) / PAGE;
            assert_eq!(state_at(&model.heap, free_at), Some((State::Free, pages)));
            arena.refuse(Refusals::Calls(0..usize::MAX));
            let mut spares = Vec::new();
            let first = model.heap.alloc_objects_run(class, more, |spare| spares.push(spare));
            arena.refuse(Refusals::Never);
            served[usize::from(first.is_some())] += 1;
            assert!(spares.len() <= left);
            assert_eq!(spares.len() == more, left > more, "{left}");
            let object_pages = model.heap.stats().object_pages - before.object_pages;
            assert_eq!(object_pages, spares.len() + usize::from(first.is_some()));
            for span in spares.into_iter().chain(first) {
                // SAFETY: ours, and nothing of it is out.
                unsafe { model.heap.free_objects(span) };
            }
            let after = model.heap.stats();
            assert_eq!(
                (after.object_pages, after.free_pages),
                (before.object_pages, before.free_pages)
            );
            assert_eq!(after.record_live_bytes, before.record_live_bytes);
            assert_eq!(state_at(&model.heap, free_at), Some((State::Free, pages)));
        }
        assert!(served[0] > 0 && served[1] > 0, "{served:?}");
        for span in fillers {
            // SAFETY: ours, and nothing of it is out.
            unsafe { model.heap.free_objects(span) };
        }
        assert_eq!(model.heap.stats().object_pages, 0);
        model.finish();
    });
}
