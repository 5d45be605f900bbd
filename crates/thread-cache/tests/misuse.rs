//! What a program that frees wrongly leaves in a bin is reported when it is looked at.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{Objects, Registry, STEPS, Thread, class_of_size, classes, plenty};
use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::{Budget, Misuse};

#[test]
fn a_misuse_that_the_source_reports_reaches_the_caller() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let (class, other) = (class_of_size(64), class_of_size(128));
    let theirs = thread.alloc(other);
    thread.free(class, theirs);
    assert_eq!(thread.retire(), Err(Misuse::Foreign(theirs, class)));

    let thread = Thread::new(&source, &budget, &registry);
    let mut wrong = Aligned([0; 64]);
    let wrong: *mut u8 = wrong.0.as_mut_ptr();
    let all: Vec<_> = (0..class.batch()).map(|_| thread.alloc(class)).collect();
    let mut answer = thread.try_free(class, wrong);
    for object in all {
        answer = answer.and_then(|()| thread.try_free(class, object));
    }
    answer = answer.and_then(|()| thread.retire());
    assert_eq!(answer, Err(Misuse::DoubleFree(wrong, class)), "the mock knows it as not out");
}

#[test]
fn a_misuse_that_making_way_finds_reaches_the_caller_of_a_refill_whose_objects_are_in_the_bin() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(16);
    let other = source.fetch_one(class);
    source.forget();
    source.books().way = Some(other as usize);
    assert_eq!(thread.try_alloc(class), Err(Misuse::DoubleFree(other, class)));
    let (_, wanted, got) = source.books().fetches[0];
    assert_eq!((wanted, got, thread.cache.cached(class)), (8, 8, 7));
    assert!(thread.try_alloc(class).is_ok_and(|object| !object.is_null()), "out of the bin");
    thread.retire().unwrap();
}

/// Aligned as every object of its size is.
#[repr(align(64))]
struct Aligned([u8; 64]);

#[test]
fn a_pointer_into_an_object_is_reported_before_it_leaves_if_it_is_less_aligned_than_objects_are() {
    let (budget, registry) = (plenty(), Registry::new());
    for (size, offset) in [(16, 8), (64, 16), (64, 32), (1024, 512), (8192, 8), (28672, 4096 - 8)] {
        let source = Objects::new();
        let class = class_of_size(size);
        for place in 0..6 {
            let thread = Thread::new(&source, &budget, &registry);
            thread.earn(class);
            let mut all: Vec<_> = (0..6).map(|_| thread.alloc(class)).collect();
            let inside = all[place].wrapping_add(offset);
            all[place] = inside;
            source.forget();
            let mut answer = all.iter().try_for_each(|&object| thread.try_free(class, object));
            if class.batch() == 1 {
                // One by one: it is the source's to see.
                continue;
            }
            answer = answer.and_then(|()| thread.retire());
            assert_eq!(answer, Err(Misuse::NotAnObject(inside, class)), "{size} {offset} {place}");
        }
    }
}

#[test]
fn verify_finds_in_a_bin_what_a_double_free_or_a_free_of_no_object_left_there() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    source.books().misused = true;
    let class = class_of_size(64);
    let out =
        |class: Class, object: *mut u8| source.books().out.get(&(object as usize)) == Some(&class);
    for distance in [0, 1, 2, 3, 8, 20] {
        let thread = Thread::new(&source, &budget, &registry);
        let all: Vec<_> = (0..24).map(|_| thread.alloc(class)).collect();
        all.iter().for_each(|&object| thread.free(class, object));
        // SAFETY: the cache is this thread's.
        unsafe { assert_eq!(thread.cache.verify(out), Ok(())) };
        let again = if distance == 0 { all[5].wrapping_add(8) } else { all[24 - distance] };
        thread.free(class, again);
        // SAFETY: as above.
        let found = unsafe { thread.cache.verify(out) };
        if distance == 0 {
            assert_eq!(found, Err(Misuse::NotAnObject(again, class)));
        } else {
            assert!(matches!(found, Err(Misuse::DoubleFree(_, of)) if of == class), "{distance}");
        }
    }
}

/// Frees every object once and one of them twice, `distance` frees later, with nothing allocated in
/// between, and ends the cache. Returns whether and how that was seen.
fn double_free(class: Class, before: usize, distance: usize, behind: usize) -> Result<(), Misuse> {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    source.books().misused = true;
    let thread = Thread::new(&source, &budget, &registry);
    let all: Vec<_> = (0..before + distance + behind).map(|_| thread.alloc(class)).collect();
    let (first, rest) = all.split_at(before + distance);
    let again = first[before];
    first
        .iter()
        .chain([&again])
        .chain(rest)
        .try_for_each(|&object| thread.try_free(class, object))?;
    thread.retire()
}

#[test]
fn a_double_free_is_reported_when_the_bin_is_flushed_wherever_the_two_are() {
    for class in [16, 2688, 8192, 28672].map(class_of_size) {
        let batch = class.batch();
        for before in [0, 1, 5, batch] {
            for distance in 1..=2 * batch + 1 {
                for behind in [0, 1, 2, 7, batch, 3 * batch] {
                    let answer = double_free(class, before, distance, behind);
                    assert!(
                        matches!(answer, Err(Misuse::DoubleFree(_, of)) if of == class),
                        "{class:?} {before} {distance} {behind}: {answer:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_pointer_freed_twice_in_a_row_is_reported_at_once_where_the_bin_is_full() {
    let (budget, registry) = (plenty(), Registry::new());
    for class in classes().filter(|class| class.batch() == 1) {
        let source = Objects::new();
        let thread = Thread::new(&source, &budget, &registry);
        thread.earn(class);
        source.forget();
        let object = thread.alloc(class);
        thread.free(class, object);
        assert_eq!(thread.try_free(class, object), Err(Misuse::DoubleFree(object, class)));
        assert_eq!((source.stored(), thread.cache.cached(class)), (0, 1), "nothing has happened");
        thread.retire().unwrap();
    }
}

#[test]
fn a_circle_within_a_batch_is_seen_before_any_of_it_leaves() {
    let class = class_of_size(64);
    let batch = class.batch();
    // A longer one is seen where its objects arrive, or by the end that is missing.
    for distance in 1..batch / 2 {
        let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
        source.books().misused = true;
        let thread = Thread::new(&source, &budget, &registry);
        let all: Vec<_> = (0..8 * batch).map(|_| thread.alloc(class)).collect();
        // Two batches behind the circle, so that the end of the list is nowhere near.
        let (behind, circle) = all[..2 * batch + distance].split_at(2 * batch);
        behind.iter().chain(circle).for_each(|&object| thread.free(class, object));
        thread.free(class, circle[0]);
        assert_eq!(source.stored(), 0, "the bin has room for all of them");
        let answer = thread.retire();
        assert!(matches!(answer, Err(Misuse::DoubleFree(..))), "{distance}: {answer:?}");
        assert_eq!(source.books().stores, [], "{distance}");
    }
}

#[test]
fn a_double_free_is_reported_when_a_scavenge_finds_it() {
    for distance in 1..70 {
        let (source, registry) = (Objects::new(), Registry::new());
        source.books().misused = true;
        let budget = Budget::new(128 * 1024, 128 * 1024);
        let thread = Thread::new(&source, &budget, &registry);
        let class = class_of_size(64);
        let all: Vec<_> = (0..distance).map(|_| thread.alloc(class)).collect();
        let mut answer =
            all.iter().chain([&all[0]]).try_for_each(|&object| thread.try_free(class, object));
        let other = class_of_size(256 * 1024);
        for _ in 0..2 * STEPS {
            answer = answer.and_then(|()| {
                let object = thread.try_alloc(other)?;
                thread.try_free(other, object)
            });
        }
        let answer = answer.and_then(|()| thread.retire());
        assert!(
            matches!(answer, Err(Misuse::DoubleFree(_, of)) if of == class),
            "{distance}: {answer:?}"
        );
    }
}
