//! The empty spans that shards keep: how many, for whom, for how long; and what they take from the source at once.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::sync::atomic::Ordering;

use support::{
    Cache, MIB, Place, class_of_size, fetch_one, held, owner, store_each, store_near, whole_span,
    with_cache, with_shards,
};
use tiermalloc_central_cache::Misuse;
use tiermalloc_size_class::{Class, MAX_SIZE, PAGE_SIZE};
use tiermalloc_sync::Patience;

/// Has each of two shards keep so many pages at most: together an eighth of the heap.
fn with_room_for<T>(pages: usize, test: impl FnOnce(&Cache<'_>) -> T) -> T {
    with_shards(2, |cache| {
        cache.source().reserve(2 * 8 * pages * PAGE_SIZE);
        test(cache)
    })
}

fn kept_pages(cache: &Cache<'_>) -> usize {
    cache.kept_bytes() / PAGE_SIZE
}

/// All that is out is kept, and nothing is once it has been freed.
fn all_that_is_out_is_kept(cache: &Cache<'_>) {
    assert_eq!(cache.source().pages_out(), kept_pages(cache));
    cache.free_kept_spans();
    assert_eq!((cache.source().spans_out(), kept_pages(cache)), (0, 0));
    assert_eq!(cache.source().heap_stats().object_pages, 0);
}

/// So many spans of `class`, by one object of each, which are all they hold.
fn spans(near: Place<'_>, class: Class, count: usize) -> Vec<*mut u8> {
    let firsts: Vec<_> = (0..count).map(|_| whole_span(near, class)).collect();
    firsts.iter().for_each(|span| store_each(near.central(), class, span[1..].iter().copied()));
    firsts.into_iter().map(|span| span[0]).collect()
}

#[test]
fn one_shard_alone_keeps_nothing() {
    with_cache(|cache| {
        cache.source().reserve(usize::MAX);
        cache.source().give_runs(true);
        let class = class_of_size(16384);
        let all = spans(cache.near(0), class, 4);
        store_each(cache, class, all);
        assert_eq!((cache.source().spans_out(), cache.kept_bytes()), (0, 0));
        assert!(cache.source().given.lock().unwrap().is_empty());
    });
}

#[test]
fn each_shard_keeps_empty_spans_up_to_its_bound() {
    with_room_for(10, |cache| {
        let (one, three) = (class_of_size(1024), class_of_size(24576));
        let freed = || cache.source().freed.load(Ordering::Relaxed);
        // Whoever frees them, they stay with the shard that had them.
        for (home, other) in [(0, 1), (1, 0)] {
            let before = (freed(), kept_pages(cache));
            let all = spans(cache.near(home), one, 12);
            all.iter().for_each(|&object| store_near(cache.near(other), one, &[object]));
            assert_eq!((freed(), kept_pages(cache)), (before.0 + 2, before.1 + 10));
        }
        all_that_is_out_is_kept(cache);
        // What would come past the bound is freed, what fits is not.
        let (long, short) = (spans(cache.near(0), three, 4), spans(cache.near(0), one, 2));
        let before = freed();
        store_each(cache, three, long);
        assert_eq!((freed(), kept_pages(cache)), (before + 1, 9));
        store_each(cache, one, short);
        assert_eq!((freed(), kept_pages(cache)), (before + 2, 10));
        all_that_is_out_is_kept(cache);
    });
}

#[test]
fn no_shard_keeps_more_than_8_mib_or_its_part_of_an_eighth_of_the_heap() {
    let class = class_of_size(MAX_SIZE);
    for (shards, reserved, kept) in [
        (2, usize::MAX, 31),
        (16, usize::MAX, 31),
        (2, 16 * MIB, 3),
        (8, 64 * MIB, 3),
        (16, 16 * MIB, 0),
    ] {
        with_shards(shards, |cache| {
            cache.source().reserve(reserved);
            let all: Vec<_> = (0..34).map(|_| fetch_one(cache.near(1), class)).collect();
            store_each(cache, class, all);
            assert_eq!(kept_pages(cache), kept * class.pages(), "{reserved} and {shards}");
            all_that_is_out_is_kept(cache);
        });
    }
}

#[test]
fn kept_spans_serve_the_newest_first_any_class_of_as_many_pages() {
    with_room_for(40, |cache| {
        // With free bits outside the record and inside, and with a tail.
        for [class, next] in [[16384, 16384], [1024, 8], [8, 16], [248, 1024], [4096, 16384]] {
            let (class, next) = (class_of_size(class), class_of_size(next));
            let all = spans(cache.near(1), class, 5);
            store_each(cache, class, all.iter().copied());
            assert_eq!(kept_pages(cache), 5 * class.pages());
            cache.source().refusals.refuse(1, 0);
            // Neither the other shard nor a class of other lengths is served from them.
            let elsewhere = [(0, next), (1, class_of_size(24576))]
                .map(|(at, class)| (fetch_one(cache.near(at), class), class));
            assert_eq!(
                (cache.source().refusals.calls(), held(cache, class).0 > 0),
                (2, class == next)
            );
            let mut used = Vec::new();
            for &expected in all.iter().rev() {
                let span = whole_span(cache.near(1), next);
                assert_eq!((span[0], owner(cache, span[0])), (expected, 1));
                assert!(span.iter().all(|&object| cache.is_object(next, object as usize)));
                used.extend(span);
            }
            assert_eq!((cache.source().refusals.calls(), kept_pages(cache)), (2, 0));
            store_each(cache, next, used);
            elsewhere.into_iter().for_each(|(object, class)| store_each(cache, class, [object]));
            all_that_is_out_is_kept(cache);
        }
    });
}

#[test]
fn a_kept_span_that_cannot_serve_the_class_goes_back_and_a_fresh_one_comes() {
    with_room_for(10, |cache| {
        let (class, next) = (class_of_size(1024), class_of_size(8));
        let all = spans(cache.near(0), class, 2);
        store_each(cache, class, all);
        cache.source().recarvings.refuse(1, 1);
        cache.source().refusals.refuse(1, 0);
        let one = fetch_one(cache.near(0), next);
        assert_eq!((cache.source().refusals.calls(), kept_pages(cache)), (1, 1));
        assert_eq!((cache.source().spans_out(), held(cache, next)), (2, (1, 1, 0)));
        // And if there is none: nothing, until there is.
        cache.source().recarvings.refuse(1, 1);
        cache.source().refusals.refuse(1, 1);
        let two = cache.near(0).fetch_one(class);
        assert_eq!((two, kept_pages(cache), held(cache, class)), (None, 0, (0, 0, 0)));
        store_each(cache, next, [one]);
        all_that_is_out_is_kept(cache);
    });
}

#[test]
fn spans_that_nobody_wanted_since_the_last_look_are_freed() {
    with_room_for(20, |cache| {
        let class = class_of_size(1024);
        let near = cache.near(1);
        let all = spans(near, class, 8);
        store_each(cache, class, all);
        let look = |expected: usize| {
            cache.near(0).free_idle_spans();
            near.free_idle_spans();
            assert_eq!(kept_pages(cache), expected);
        };
        look(8);
        // Three of them are wanted, one by one and at the same time; five are not.
        for _ in 0..3 {
            let one = fetch_one(near, class);
            store_each(cache, class, [one]);
        }
        let three = spans(near, class, 3);
        store_each(cache, class, three);
        look(3);
        look(0);
        // Those that have come since are not idle yet.
        let all = spans(near, class, 2);
        store_each(cache, class, all);
        look(2);
        let all = spans(near, class, 4);
        store_each(cache, class, all);
        look(4);
        look(0);
        all_that_is_out_is_kept(cache);
    });
}

#[test]
fn plundering_in_turn_frees_the_idle_spans_of_every_shard() {
    with_room_for(20, |cache| {
        let class = class_of_size(1024);
        for at in 0..2 {
            let all = spans(cache.near(at), class, 3);
            store_each(cache, class, all);
        }
        // 13 times is once around one of the shards.
        let mut around = |expected: usize| {
            (0..13).for_each(|_| cache.near(1).plunder_next().unwrap());
            assert_eq!(kept_pages(cache), expected);
        };
        [6, 6, 3, 0].into_iter().for_each(&mut around);
    });
}

#[test]
fn a_length_that_is_wanted_does_not_keep_others_nor_go_for_them() {
    with_room_for(64, |cache| {
        let (short, long) = (class_of_size(1024), class_of_size(MAX_SIZE));
        let near = cache.near(1);
        for class in [short, long] {
            let one = whole_span(near, class);
            store_each(cache, class, one);
        }
        near.free_idle_spans();
        for _ in 0..3 {
            // The long one serves between any two looks, the short one never.
            let one = fetch_one(near, long);
            store_each(cache, long, [one]);
            near.free_idle_spans();
            assert_eq!(kept_pages(cache), long.pages());
        }
        near.free_idle_spans();
        assert_eq!(kept_pages(cache), 0);
    });
}

#[test]
fn what_is_kept_is_known_by_what_of_it_was_touched() {
    with_room_for(40, |cache| {
        let (class, near) = (class_of_size(1024), cache.near(1));
        let figures = || {
            let mut patience = Patience::ENDLESS;
            cache.kept_within(&mut patience).unwrap()
        };
        // So that the heap has a region.
        store_each(cache, class, whole_span(near, class));
        cache.free_kept_spans();
        cache.source().give_runs(true);
        let one = fetch_one(near, class);
        let (bytes, touched) = figures();
        assert!(bytes == kept_pages(cache) * PAGE_SIZE && bytes >= 8 * PAGE_SIZE);
        // The first page was before, and is dirty.
        assert!(touched <= PAGE_SIZE, "{touched} of {bytes}");
        store_each(cache, class, [one]);
        assert_eq!(figures().0, bytes + PAGE_SIZE);
        assert!(figures().1 <= touched + PAGE_SIZE);
        cache.free_kept_spans();
        assert_eq!(figures(), (0, 0));
    });
}

#[test]
fn nothing_is_kept_while_memory_is_short() {
    with_room_for(10, |cache| {
        let (class, other) = (class_of_size(1024), class_of_size(248));
        let all = spans(cache.near(0), class, 4);
        store_each(cache, class, all[..2].iter().copied());
        cache.source().give_runs(true);
        cache.source().tighten(true);
        store_each(cache, class, all[2..].iter().copied());
        let one = fetch_one(cache.near(1), other);
        assert_eq!((kept_pages(cache), cache.source().spans_out()), (2, 3));
        assert!(cache.source().given.lock().unwrap().is_empty(), "nor taken beforehand");
        store_each(cache, other, [one]);
        assert_eq!(cache.source().spans_out(), 2);
        cache.source().tighten(false);
        // What was kept before is still there.
        cache.source().refusals.refuse(1, 0);
        let two = spans(cache.near(0), class, 2);
        assert_eq!(cache.source().refusals.calls(), 0);
        store_each(cache, class, two);
        all_that_is_out_is_kept(cache);
    });
}

#[test]
fn a_quarter_of_what_a_shard_may_keep_is_taken_at_once_as_far_as_there_is_room() {
    with_room_for(40, |cache| {
        let (class, near) = (class_of_size(1024), cache.near(1));
        let given = || cache.source().given.lock().unwrap().clone();
        // So that the heap has a region.
        store_each(cache, class, whole_span(near, class));
        cache.free_kept_spans();
        cache.source().give_runs(true);
        let mut all = whole_span(near, class);
        assert_eq!((given(), kept_pages(cache)), (vec![(9, 9)], 9));
        assert_eq!(cache.source().spans_out(), 10);
        // The others serve next, in order of address, before there is a further one.
        for n in 2..=10 {
            all.extend(whole_span(near, class));
            assert_eq!((given().len(), kept_pages(cache)), (1, 10 - n));
        }
        let apart = |two: &[*mut u8]| two[1] as usize - two[0] as usize == class.size();
        assert!(all.windows(2).all(apart) && all.len() == 80);
        assert!(all.iter().all(|&object| owner(cache, object) == 1));
        store_each(cache, class, all);
        // Ten spans are kept. Of longer ones fewer come at once: of three pages three, of 32 one.
        let three = fetch_one(near, class_of_size(24576));
        assert_eq!((given()[1..].to_vec(), kept_pages(cache)), (vec![(2, 2)], 16));
        let long = fetch_one(near, class_of_size(MAX_SIZE));
        assert_eq!((given().len(), kept_pages(cache)), (2, 16));
        store_each(cache, class_of_size(24576), [three]);
        store_each(cache, class_of_size(MAX_SIZE), [long]);
        all_that_is_out_is_kept(cache);
        // With 36 of 40 pages kept there is room for no more than one beside the span that is wanted.
        cache.source().give_runs(false);
        let all = spans(near, class, 36);
        store_each(cache, class, all);
        cache.source().give_runs(true);
        let two = fetch_one(near, class_of_size(16384));
        assert_eq!((given()[2..].to_vec(), kept_pages(cache)), (vec![(1, 1)], 38));
        let three = fetch_one(near, class_of_size(24576));
        assert_eq!((given().len(), kept_pages(cache)), (3, 38));
        store_each(cache, class_of_size(16384), [two]);
        store_each(cache, class_of_size(24576), [three]);
        assert_eq!(kept_pages(cache), 40);
        all_that_is_out_is_kept(cache);
    });
}

#[test]
fn what_comes_with_a_run_belongs_to_no_class_until_it_serves_one() {
    with_room_for(40, |cache| {
        let (class, near) = (class_of_size(1024), cache.near(0));
        store_each(cache, class, whole_span(near, class));
        cache.free_kept_spans();
        cache.source().give_runs(true);
        let one = fetch_one(near, class);
        let next = one.wrapping_add(PAGE_SIZE);
        assert_eq!((kept_pages(cache), held(cache, class)), (9, (1, 1, 0)));
        assert!(!cache.is_object(class, next as usize));
        assert_eq!(cache.check_live(class, next), Err(Misuse::Foreign(next, class)));
        // A class with other free bits is served from it as well, and what is left goes back.
        let other = whole_span(near, class_of_size(8));
        assert_eq!((other[0], kept_pages(cache)), (next, 8));
        cache.free_kept_spans();
        assert_eq!((cache.source().spans_out(), kept_pages(cache)), (2, 0));
        store_each(cache, class, [one]);
        store_each(cache, class_of_size(8), other);
        all_that_is_out_is_kept(cache);
    });
}
