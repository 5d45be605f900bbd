//! The objects of a span: every class, exactness of what comes back, order, freshness.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::BTreeSet;
use std::ptr::NonNull;

use proptest::prelude::*;
use support::arena::{Arena, PAGE, is_zero};
use support::model::{SMALL_LEAF, SMALL_ROOT, Step, with_model};
use tiermalloc_page_heap::{Past, Put, Span};
use tiermalloc_size_class::{CLASSES, Class, by_size, class_of};

fn classes() -> impl Iterator<Item = Class> {
    (1..=CLASSES).filter_map(Class::from_id)
}

/// Runs `f` over a span of each class, fresh from a heap of its own.
fn with_span(class: Class, f: impl FnOnce(&Span)) {
    let arena = Arena::new(512, 4096, 1);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        let span = model.heap.alloc_objects(class).unwrap();
        // SAFETY: the span is ours.
        f(unsafe { span.as_ref() });
    });
}

fn take(span: &Span, wanted: usize) -> Vec<(usize, bool)> {
    let mut taken = Vec::new();
    // SAFETY: the span is ours alone, as under its class's lock.
    let count = unsafe {
        span.take_objects(wanted, |object, past| taken.push((object, past == Past::Zeroed)))
    };
    assert_eq!(count, taken.len());
    taken
}

fn put(span: &Span, address: usize) -> Put {
    // SAFETY: the span is ours alone, as under its class's lock.
    unsafe { span.put_object(address) }
}

#[test]
fn every_class_gives_each_of_its_objects_once_in_order_of_address_and_fresh() {
    assert_eq!(by_size().count(), classes().count());
    for class in classes() {
        with_span(class, |span| {
            let mut all = Vec::new();
            while span.live() < class.objects() {
                let batch = take(span, class.batch());
                assert_eq!(batch.len(), class.batch().min(class.objects() - all.len()));
                all.extend(batch);
            }
            assert!(take(span, 1).is_empty());
            let first = class.shape().first_object(span.address());
            assert!(first + class.objects() * class.size() <= span.address() + span.bytes());
            let places = (0..class.objects()).map(|i| (first + i * class.size(), true));
            assert!(all.into_iter().eq(places), "class {}", class.id());
        });
    }
}

fn take_lines(span: &Span) -> Vec<usize> {
    let mut taken = Vec::new();
    // SAFETY: as in `take`.
    let count = unsafe { span.take_lines(|object, _| taken.push(object)) };
    assert_eq!(count, taken.len());
    taken
}

#[test]
fn whole_lines_are_taken_where_nobody_else_has_a_part_of_them() {
    for class in classes().filter(|class| class.size() < 64) {
        with_span(class, |span| {
            let at = |index: usize| span.address() + index * class.size();
            let first = take(span, 1);
            // The line of the first object is not whole any more; the second eight are.
            assert_eq!(take_lines(span), (8..16).map(at).collect::<Vec<_>>());
            assert_eq!(put(span, first[0].0), Put::Done);
            assert_eq!(take_lines(span), (0..8).map(at).collect::<Vec<_>>());
            let mut taken = 16;
            while taken + 8 <= class.objects() {
                assert_eq!(take_lines(span), (taken..taken + 8).map(at).collect::<Vec<_>>());
                taken += 8;
            }
            assert_eq!((take_lines(span).len(), span.live()), (0, taken), "no whole line is left");
            // Seven of a line do not make it whole, whichever is missing.
            take(span, class.objects());
            for missing in 8..16 {
                for index in (8..16).filter(|&index| index != missing) {
                    assert_eq!(put(span, at(index)), Put::Done);
                }
                assert_eq!(take_lines(span).len(), 0);
                assert_eq!(take(span, 8).len(), 7);
            }
            for index in 8..16 {
                assert_eq!(put(span, at(index)), Put::Done);
            }
            assert_eq!(take_lines(span), (8..16).map(at).collect::<Vec<_>>());
        });
    }
}

#[test]
fn what_whole_lines_pass_over_counts_as_touched() {
    let class = class_of(16, 8).unwrap();
    with_span(class, |span| {
        take(span, 1);
        take_lines(span);
        // Objects 1 to 7 were never handed out, but lie before one that was.
        let rest = take(span, 16);
        let zeroed: Vec<bool> = rest.iter().map(|object| object.1).collect();
        assert_eq!(zeroed, [[false; 7].as_slice(), &[true; 9]].concat());
    });
}

#[test]
fn lines_say_of_each_object_what_is_known_of_it() {
    let class = class_of(16, 8).unwrap();
    let arena = Arena::new(512, 4096, 3);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        for never_used in [Past::Zeroed, Past::Fresh] {
            let span = model.heap.alloc_objects(class).unwrap();
            // SAFETY: the span is ours.
            let record = unsafe { span.as_ref() };
            let pasts = || {
                let mut pasts = Vec::new();
                // SAFETY: as above.
                unsafe { record.take_lines(|_, past| pasts.push(past)) };
                pasts
            };
            let (first, _) = take(record, 1)[0];
            assert_eq!(pasts(), [never_used; 8]);
            // The first line again, of which one object was out and the others were passed over.
            assert_eq!(put(record, first), Put::Done);
            assert_eq!(pasts(), [Past::Used; 8]);
            for index in 0..16 {
                assert_eq!(put(record, record.address() + index * 16), Put::Done);
            }
            // SAFETY: nothing of it is out.
            unsafe { model.heap.free_objects(span) };
        }
    });
}

#[test]
fn every_class_takes_back_exactly_what_is_out() {
    for class in classes() {
        with_span(class, |span| {
            let (size, objects) = (class.size(), class.objects());
            let out = take(span, objects.div_ceil(2));
            let first = out[0].0;
            // The middle of an object, outside the span, its tail: misplaced. Never out: twice.
            for delta in [1, size / 2, size - 1] {
                if delta > 0 && delta < size {
                    assert_eq!(put(span, first + delta), Put::Misplaced);
                }
            }
            for address in [0, 1, span.address() - 1, span.address() + span.bytes(), usize::MAX] {
                assert_eq!(put(span, address), Put::Misplaced);
            }
            if class.tail_waste() > 0 {
                assert_eq!(put(span, first + objects * size), Put::Misplaced);
            }
            if first > span.address() {
                assert_eq!(put(span, span.address()), Put::Misplaced);
            }
            if out.len() < objects {
                assert_eq!(put(span, first + (objects - 1) * size), Put::Twice);
            }
            assert_eq!(span.live(), out.len());
            // What is out comes back once, last ones first here.
            for (i, &(object, _)) in out.iter().enumerate().rev() {
                assert_eq!(put(span, object), Put::Done);
                assert_eq!(put(span, object), Put::Twice);
                assert_eq!(span.live(), i);
            }
            // Used ones leave again from the lowest address on, and are not fresh any more.
            let again = take(span, out.len());
            assert!(again.iter().zip(&out).all(|(a, b)| a.0 == b.0 && !a.1));
        });
    }
}

#[test]
fn asking_what_a_free_would_find_changes_nothing() {
    for class in classes() {
        with_span(class, |span| {
            // SAFETY: the span is ours alone, as under its class's lock.
            let probe = |address| unsafe { span.probe_object(address) };
            let start = class.shape().first_object(span.address());
            assert_eq!(probe(start), Put::Twice, "nothing was taken yet");
            let (object, _) = take(span, 1)[0];
            for _ in 0..2 {
                assert_eq!(probe(object), Put::Done);
                assert_eq!(probe(object + 1), Put::Misplaced);
                assert_eq!(probe(start - 1), Put::Misplaced);
                assert_eq!(probe(span.address() + span.bytes()), Put::Misplaced);
            }
            assert_eq!((span.live(), put(span, object)), (1, Put::Done));
            assert_eq!(probe(object), Put::Twice);
        });
    }
}

#[test]
fn a_reused_span_is_not_fresh_where_it_was_touched() {
    let arena = Arena::new(512, 4096, 3);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        let class = class_of(16, 16).unwrap();
        for round in 0..2 {
            let span = model.heap.alloc_objects(class).unwrap();
            // SAFETY: the span is ours.
            let record = unsafe { span.as_ref() };
            assert_eq!(record.was_zeroed(), round == 0);
            let taken = take(record, 10);
            assert!(taken.iter().all(|&(_, fresh)| fresh == (round == 0)));
            for (object, _) in taken {
                // SAFETY: the object is ours.
                unsafe { (object as *mut u8).write_bytes(1, 16) };
                assert_eq!(put(record, object), Put::Done);
            }
            // SAFETY: nothing of it is out.
            unsafe { model.heap.free_objects(span) };
        }
        // Once its pages went back, it is.
        assert!(model.heap.release_pages(usize::MAX) > 0);
        let span = model.heap.alloc_objects(class).unwrap();
        // SAFETY: the span is ours.
        assert!(unsafe { span.as_ref() }.was_zeroed());
    });
}

#[test]
fn pages_that_no_object_was_taken_from_stay_clean() {
    // A span of several pages, of which one object touches the first only.
    let class = classes().find(|class| class.pages() > 4 && class.size() < PAGE).unwrap();
    let arena = Arena::new(512, 4096, 3);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        let span = model.heap.alloc_objects(class).unwrap();
        // SAFETY: the span is ours.
        let record = unsafe { span.as_ref() };
        let (object, fresh) = take(record, 1)[0];
        assert!(fresh);
        assert_eq!(put(record, object), Put::Done);
        // SAFETY: nothing of it is out.
        unsafe { model.heap.free_objects(span) };
        assert_eq!(model.heap.stats().dirty_pages, 1);
    });
}

#[test]
fn touched_pages_are_those_that_objects_reach_behind_the_colour() {
    let arena = Arena::new(8192, 4096, 3);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        // As many spans as there are colours: some end within the page that others end in front of.
        for class in classes().filter(|class| class.size() > 4096 && class.pages() < 6) {
            for _ in 0..32 {
                let span = model.heap.alloc_objects(class).unwrap();
                // SAFETY: the span is ours.
                let span = unsafe { span.as_ref() };
                assert_eq!(span.touched_pages(), 0);
                let mut taken = 0;
                while let [(object, true)] = take(span, 1)[..] {
                    taken += 1;
                    let end = object + class.size() - span.address();
                    assert_eq!(span.touched_pages(), end.div_ceil(PAGE), "{class:?} {taken}");
                }
                assert_eq!(taken, class.objects());
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_span_is_a_set_of_objects(
        id in 1..=CLASSES,
        steps in prop::collection::vec((0..5u8, 0..1500usize, 1..40usize), 1..80),
    ) {
        let class = Class::from_id(id).unwrap();
        with_span(class, |span| {
            let first = class.shape().first_object(span.address());
            let at = |index: usize| first + index * class.size();
            let mut free: BTreeSet<usize> = (0..class.objects()).collect();
            let mut touched = 0; // objects below this one were handed out once
            for &(what, n, count) in &steps {
                if what == 0 {
                    // Eight that are free from an index on that divides by eight, the lowest such.
                    let line = (0..class.objects() / 8)
                        .map(|line| line * 8..line * 8 + 8)
                        .find(|line| line.clone().all(|index| free.contains(&index)));
                    let expected: Vec<usize> = line.into_iter().flatten().collect();
                    let taken = take_lines(span);
                    assert!(taken.iter().copied().eq(expected.iter().map(|&index| at(index))));
                    for (&index, &object) in expected.iter().zip(&taken) {
                        // SAFETY: the object is ours.
                        unsafe { (object as *mut u8).write_bytes(0xff, class.size()) };
                        free.remove(&index);
                    }
                    touched = touched.max(expected.last().map_or(0, |last| last + 1));
                } else if what < 3 {
                    let expected: Vec<_> = free.iter().copied().take(count).collect();
                    let taken = take(span, count);
                    assert_eq!(taken.len(), expected.len());
                    for (&index, (object, fresh)) in expected.iter().zip(taken) {
                        assert_eq!((object, fresh), (at(index), index >= touched));
                        assert!(!fresh || is_zero(object, class.size()));
                        // SAFETY: the object is ours.
                        unsafe { (object as *mut u8).write_bytes(0xff, class.size()) };
                        free.remove(&index);
                    }
                    touched = touched.max(expected.last().map_or(0, |last| last + 1));
                } else {
                    let index = n % class.objects();
                    let expected = if free.insert(index) { Put::Done } else { Put::Twice };
                    assert_eq!(put(span, at(index)), expected);
                }
                assert_eq!(span.live(), class.objects() - free.len());
            }
        });
    }
}

#[test]
fn records_of_free_bits_come_back_with_their_span() {
    let arena = Arena::new(2048, 4096, 5);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        // Inline bits, short ones and long ones.
        for size in [8, 16, 40, 64, 128, 1024, 8320] {
            let class = class_of(size, 8).unwrap();
            let spans: Vec<NonNull<Span>> =
                (0..20).map(|_| model.heap.alloc_objects(class).unwrap()).collect();
            let before = model.heap.stats().record_live_bytes;
            let bits = match class.objects() {
                0..=128 => 0,
                129..=512 => 64,
                _ => 128,
            };
            for (i, &span) in spans.iter().enumerate() {
                // SAFETY: nothing of it is out.
                unsafe { model.heap.free_objects(span) };
                let freed = before - model.heap.stats().record_live_bytes;
                // A span record more or less is one that was merged.
                assert_eq!(freed % 64, 0);
                assert!(freed >= (i + 1) * bits, "{freed}");
            }
        }
        model.step(&Step::ReleasePages(usize::MAX));
        assert_eq!(model.heap.stats().record_live_bytes % 64, 0);
    });
}
