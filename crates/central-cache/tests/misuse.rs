//! What comes back and is no free object of its class is reported, exactly, and nothing else changes.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{
    Cache, MIB, chain_of, class_of_size, empty_of_all, fetch_all, held, objects, store_batches,
    store_each, store_near, whole_span, with_cache, with_shards,
};
use tiermalloc_central_cache::{Chain, Misuse, SpanSource, spread};
use tiermalloc_size_class::{Class, PAGE_SIZE};

#[test]
fn a_double_free_is_reported_and_what_lies_behind_it_is_left_alone() {
    with_cache(|cache| {
        for class in [16, 248, 1024, 28672, 29696].map(class_of_size) {
            let all = fetch_all(cache, class, class.objects());
            let last = *all.last().unwrap();
            // The last object keeps the span in the class.
            store_each(cache, class, [all[0]]);
            let out = cache.stats(class).out;
            // SAFETY: the misuse is the point; the cache checks each object.
            let answer = unsafe { cache.store_to_spans(class, chain_of(&[all[0], last])) };
            assert_eq!(answer, Err(Misuse::DoubleFree(all[0], class)));
            assert_eq!(cache.stats(class).out, out, "nothing was taken back");
            store_each(cache, class, all.into_iter().skip(1));
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn a_double_free_within_one_chain_is_reported_also_when_the_span_has_emptied_in_between() {
    with_cache(|cache| {
        for class in [1024, 28672, 262144].map(class_of_size) {
            let all = fetch_all(cache, class, 2 * class.objects());
            let (first, second) = all.split_at(class.objects());
            let chain: Vec<*mut u8> = first.iter().chain(&second[..1]).copied().collect();
            // Linking the first object a second time makes the chain a circle.
            let mut circle = chain_of(&chain);
            circle.count += 1;
            // SAFETY: the misuse is the point.
            unsafe { Chain::link(second[0], first[0]) };
            // SAFETY: as above.
            let answer = unsafe { cache.store_to_spans(class, circle) };
            assert_eq!(answer, Err(Misuse::DoubleFree(first[0], class)));
            assert_eq!(cache.source().spans_out(), cache.stats(class).spans, "freed once");
            store_each(cache, class, second.iter().skip(1).copied());
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn a_chain_that_ends_before_it_should_is_reported_and_none_of_its_last_batch_goes_home() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 80);
        for (count, there) in [(1, 0), (2, 1), (32, 17), (33, 32), (64, 63), (80, 40)] {
            let mut short = chain_of(&all[..there]);
            short.count = count;
            // SAFETY: the misuse is the point.
            let answer = unsafe { cache.store_to_spans(class, short) };
            let end = there.checked_sub(1).map_or(std::ptr::null_mut(), |last| all[last]);
            assert_eq!(answer, Err(Misuse::DoubleFree(end, class)), "{there} of {count}");
            let gone = there.saturating_sub(1) / 32 * 32;
            assert_eq!(cache.stats(class).out, 80 - gone);
            let again = fetch_all(cache, class, gone);
            assert_eq!(again, all[..gone], "in order of address");
        }
        store_each(cache, class, all);
    });
}

#[test]
fn objects_before_a_misplaced_one_are_taken_back() {
    with_cache(|cache| {
        let class = class_of_size(768);
        let all = fetch_all(cache, class, class.objects());
        let middle = all[5].wrapping_add(16);
        // SAFETY: as above; the objects from the sixth on are not used.
        let answer = unsafe { cache.store_to_spans(class, chain_of(&[all[0], all[1], middle])) };
        assert_eq!(answer, Err(Misuse::NotAnObject(middle, class)));
        assert_eq!(cache.stats(class).out, class.objects() - 2);
        store_each(cache, class, all.into_iter().skip(2));
    });
}

#[test]
fn every_address_of_a_span_that_is_not_an_object_is_reported() {
    with_cache(|cache| {
        // With a tail that no object covers, without one, and with free bits inside the record.
        for class in [768, 1024, 2304, 34816].map(class_of_size) {
            let all = fetch_all(cache, class, class.objects());
            let span = cache.source().span_of(all[0] as usize).unwrap();
            // SAFETY: objects of it are out.
            let start = unsafe { span.as_ref() }.address();
            for offset in (0..class.pages() * PAGE_SIZE).step_by(8) {
                let address = (start + offset) as *mut u8;
                let starts = all.contains(&address);
                assert_eq!(cache.is_object(class, address as usize), starts, "{class:?} {offset}");
                if !starts {
                    let chain = Chain { head: address, count: 1 };
                    // SAFETY: the misuse is the point; the memory is ours to read a link from.
                    let answer = unsafe { cache.store_to_spans(class, chain) };
                    assert_eq!(answer, Err(Misuse::NotAnObject(address, class)));
                }
            }
            assert_eq!(cache.stats(class).out, class.objects());
            store_each(cache, class, all);
        }
    });
}

#[test]
fn what_belongs_to_no_span_of_the_class_is_foreign() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let other = class_of_size(128);
        let theirs = fetch_all(cache, other, 1)[0];
        let large = cache.source().heap().alloc_large(3, 1).unwrap();
        // SAFETY: just allocated.
        let large = unsafe { large.as_ref() }.address();
        let gone = fetch_all(cache, class, 1)[0];
        store_each(cache, class, [gone]);
        assert_eq!(held(cache, class), (0, 0, 0), "its span went back");
        let mut on_the_stack = [0u64; 8];
        let strangers = [theirs, large as *mut u8, gone, (&raw mut on_the_stack).cast::<u8>()];
        for stranger in strangers {
            assert!(!cache.is_object(class, stranger as usize));
            // SAFETY: the misuse is the point; all of it is memory that can be read.
            let answer = unsafe { cache.store_to_spans(class, chain_of(&[stranger])) };
            assert_eq!(answer, Err(Misuse::Foreign(stranger, class)));
        }
        assert!(!cache.is_object(class, 0) && !cache.is_object(class, usize::MAX));
        store_each(cache, other, [theirs]);
        // SAFETY: allocated above and not used any more.
        unsafe { cache.source().heap().free_large(large) }.unwrap();
    });
}

/// Two batches that share an object: what two threads that free the same object make. The object, which is
/// free when the second of them leaves.
fn store_batches_that_share_an_object(cache: &Cache<'_>) -> (Class, *mut u8) {
    let class = class_of_size(6144);
    let all = fetch_all(cache, class, 3);
    // SAFETY: the misuse is the point.
    unsafe {
        cache.store(class, chain_of(&[all[0], all[1]])).unwrap();
        let shared = Chain { head: all[2], count: 2 };
        Chain::link(all[2], all[1]);
        cache.store(class, shared).unwrap();
    }
    (class, all[1])
}

#[test]
fn a_misuse_inside_a_batch_shows_when_the_batch_leaves_the_transfer_cache() {
    with_cache(|cache| {
        let (class, shared) = store_batches_that_share_an_object(cache);
        assert_eq!(cache.drain(class, usize::MAX), Err(Misuse::DoubleFree(shared, class)));
    });
    with_cache(|cache| {
        let (class, shared) = store_batches_that_share_an_object(cache);
        assert_eq!(cache.plunder(class), Ok(0));
        assert_eq!(cache.plunder(class), Err(Misuse::DoubleFree(shared, class)));
    });
}

#[test]
fn a_misuse_inside_a_batch_shows_when_the_batch_makes_way() {
    with_cache(|cache| {
        let (class, shared) = store_batches_that_share_an_object(cache);
        let (full, wanting) = (class_of_size(262144), class_of_size(47104));
        cache.source().reserve(16 * MIB);
        // Together more than a 16th of the heap, but neither by itself, so that each class has its turn.
        for full in [full, class_of_size(196608)] {
            store_batches(cache, full, &fetch_all(cache, full, 3));
        }
        let mut answers = Vec::new();
        for _ in 0..13 {
            assert_eq!(cache.fetch(wanting, 1).count, 1);
            answers.push(cache.make_way(wanting));
        }
        let told: Vec<_> = answers.into_iter().filter(|answer| answer.is_err()).collect();
        assert_eq!(told, [Err(Misuse::DoubleFree(shared, class))]);
    });
}

/// How many of the objects of a batch, which another thread puts in, come back to this one, and not somebody else's that are out.
fn of_good_batch(cache: &Cache<'_>, class: Class, good: &[*mut u8]) -> usize {
    store_near(cache.near(spread(1)), class, good);
    let got = objects(cache.near(spread(0)).fetch(class, class.batch()));
    got.iter().filter(|object| good.contains(object)).count()
}

#[test]
fn where_nothing_waits_nothing_is_left_of_a_batch_whose_first_object_came_in_twice() {
    for class in [8, 16, 64, 1024].map(class_of_size) {
        with_cache(|cache| {
            let all = fetch_all(cache, class, 4 * class.batch());
            let batches: Vec<_> = all.chunks(class.batch()).collect();
            let mut again = batches[2].to_vec();
            again[0] = batches[0][0];
            for batch in [batches[0], batches[1], &again] {
                store_near(cache.near(spread(0)), class, batch);
            }
            for left in (0..3).rev() {
                assert_eq!(cache.near(spread(0)).fetch(class, class.batch()).count, class.batch());
                assert_eq!(cache.stats(class).transfer, left * class.batch());
            }
            assert_eq!(of_good_batch(cache, class, batches[3]), class.batch(), "{class:?}");
        });
    }
}

#[test]
fn batches_that_a_write_to_a_free_object_has_lost_are_not_waited_for() {
    for written in [0, 1, 8 * 4096 + 4] {
        with_cache(|cache| {
            let class = class_of_size(64);
            let all = fetch_all(cache, class, 4 * class.batch());
            let (lost, good) = all.split_at(3 * class.batch());
            for batch in lost.chunks(class.batch()) {
                store_near(cache.near(spread(0)), class, batch);
            }
            // SAFETY: the misuse is the point; the object has a second word.
            unsafe { lost[2 * class.batch()].cast::<usize>().add(1).write(written) };
            let fetch = || objects(cache.near(spread(0)).fetch(class, class.batch()));
            assert_eq!(fetch(), lost[2 * class.batch()..]);
            assert!(cache.has_batches(class));
            assert!(fetch().iter().all(|object| !all.contains(object)), "out of spans");
            assert_eq!((cache.stats(class).transfer, cache.held_bytes()), (0, 0));
            assert!(!cache.has_batches(class));
            assert_eq!(of_good_batch(cache, class, good), class.batch());
        });
    }
}

#[test]
fn with_several_shards_a_mistake_is_reported_wherever_it_is_made() {
    with_shards(4, |cache| {
        for (class, home) in [248, 1024, 12288].map(class_of_size).into_iter().zip(1..) {
            let all = whole_span(cache.near(home), class);
            let theirs = whole_span(cache.near(home ^ 1), class_of_size(2048));
            let inside = all[1].wrapping_add(8);
            store_each(cache, class, [all[0]]);
            let mistakes = [
                (all[0], Misuse::DoubleFree(all[0], class)),
                (inside, Misuse::NotAnObject(inside, class)),
                (theirs[0], Misuse::Foreign(theirs[0], class)),
            ];
            let before = held(cache, class);
            for (wrong, expected) in mistakes {
                for at in 0..4 {
                    // SAFETY: the misuse is the point; the memory can be read.
                    let answer = unsafe { cache.near(at).store(class, chain_of(&[wrong])) };
                    assert!(answer == Err(expected) || class.batch() == 1, "{answer:?}");
                    // A batch of one is believed until it leaves the transfer cache.
                    if answer.is_ok() {
                        assert_eq!(cache.drain(class, 1), Err(expected));
                    }
                    assert_eq!(cache.check_live(class, wrong), Err(expected));
                    // SAFETY: as above.
                    assert_eq!(unsafe { cache.put_one(class, wrong) }, Err(expected));
                }
                assert_eq!(held(cache, class), before, "nothing was taken back");
            }
            store_each(cache, class, all.into_iter().skip(1));
            store_each(cache, class_of_size(2048), theirs);
            assert_eq!(cache.source().spans_out(), 0);
        }
    });
}

#[test]
fn a_double_free_in_a_chain_of_several_shards_objects_is_reported_once_the_span_has_emptied_too() {
    with_shards(2, |cache| {
        let class = class_of_size(12288);
        let [a, b] = [0, 1].map(|home| whole_span(cache.near(home), class));
        // Twice the first shard's object, whose span has emptied in between.
        let mut circle = chain_of(&[a[0], b[0], a[1]]);
        circle.count += 1;
        // SAFETY: the misuse is the point.
        let answer = unsafe {
            Chain::link(a[1], a[0]);
            cache.store_to_spans(class, circle)
        };
        assert_eq!(answer, Err(Misuse::DoubleFree(a[0], class)));
        assert_eq!(cache.source().spans_out(), cache.stats(class).spans, "freed once");
        // The other shard's turn had not come: its object was left alone.
        assert_eq!(held(cache, class), (1, 2, 0));
        store_each(cache, class, b);
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn a_double_free_across_shards_shows_when_the_batches_leave() {
    with_shards(2, |cache| {
        let class = class_of_size(6144);
        let (mine, theirs) = (whole_span(cache.near(0), class), whole_span(cache.near(1), class));
        store_near(cache.near(0), class, &[mine[0], theirs[0]]);
        // SAFETY: the misuse is the point.
        unsafe {
            Chain::link(mine[1], theirs[0]);
            cache.near(1).store(class, Chain { head: mine[1], count: 2 }).unwrap();
        }
        assert_eq!(cache.near(0).drain(class, 1), Ok(2));
        let answer = cache.near(1).drain(class, 1);
        assert_eq!(answer, Err(Misuse::DoubleFree(theirs[0], class)));
        assert_eq!(held(cache, class), (2, 2 * class.objects() - 3, 0));
        store_each(cache, class, mine.into_iter().skip(2).chain(theirs.into_iter().skip(1)));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn a_double_free_of_an_object_whose_span_is_kept_is_reported() {
    with_shards(2, |cache| {
        cache.source().reserve(64 * MIB);
        let class = class_of_size(1024);
        let all = whole_span(cache.near(1), class);
        store_each(cache, class, all.iter().copied());
        assert_eq!((held(cache, class), cache.kept_bytes()), ((0, 0, 0), PAGE_SIZE));
        for &object in &all {
            // Nobody who asks the map believes it to be of any class, so that it does not get this far.
            assert_eq!(cache.source().span_of(object as usize), None);
            assert!(!cache.is_object(class, object as usize));
            // SAFETY: the misuse is the point.
            let answer = unsafe { cache.store_to_spans(class, chain_of(&[object])) };
            assert_eq!(answer, Err(Misuse::Foreign(object, class)));
            assert_eq!(cache.check_live(class, object), answer);
        }
        // Once it serves another class, it is none of this one's.
        let other = class_of_size(2048);
        let theirs = whole_span(cache.near(1), other);
        assert_eq!(theirs[0], all[0], "the same span");
        // SAFETY: as above.
        let answer = unsafe { cache.store_to_spans(class, chain_of(&all[1..2])) };
        assert_eq!(answer, Err(Misuse::Foreign(all[1], class)));
        store_each(cache, other, theirs);
        empty_of_all(cache);
        cache.free_kept_spans();
        assert_eq!(cache.source().spans_out(), 0);
    });
}
