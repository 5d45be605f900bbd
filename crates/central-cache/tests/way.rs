//! Who needs a fresh span while much waits in the transfer caches has others let go of some of it.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{
    Cache, chain_of, class_of_size, empty_of_all, fetch_all, fetch_near, fetch_one, held, objects,
    store_batches, store_each, store_near, with_cache, with_shards,
};
use tiermalloc_size_class::{CLASSES, Class, MAX_SIZE, PAGE_SIZE};

/// Four of the largest objects, a little more than 1 MiB: heaps are multiples of it, so that their parts are.
const UNIT: usize = 4 * MAX_SIZE;

/// Stores so many batches of the largest class, one object each, which is far from the first in turn.
fn hold(cache: &Cache<'_>, batches: usize) -> Class {
    let class = class_of_size(MAX_SIZE);
    store_batches(cache, class, &fetch_all(cache, class, batches));
    class
}

/// Takes a fresh span, as a thread that needs one does, as often as all classes take to have their turn.
fn take_fresh_spans(cache: &Cache<'_>, class: Class) -> Vec<*mut u8> {
    let mut all = Vec::new();
    for _ in 0..13 {
        let before = cache.stats(class).spans;
        while cache.stats(class).spans == before {
            all.extend(objects(cache.fetch(class, class.batch())));
            cache.make_way(class).unwrap();
        }
    }
    all
}

#[test]
fn who_takes_a_fresh_span_while_much_is_held_makes_others_let_go() {
    with_cache(|cache| {
        let wanting = class_of_size(8192);
        // More than a 16th of the heap, but less than 1 MiB; more than that, but not than a 16th; and more.
        for (reserved, batches, goes) in [
            (8 * UNIT, 3, false),
            (32 * UNIT, 8, false),
            (16 * UNIT, 5, true),
            (32 * UNIT, 9, true),
        ] {
            cache.source().reserve(reserved);
            let holding = hold(cache, batches);
            let all = take_fresh_spans(cache, wanting);
            // One at a time, each longer than two spans, until it is not much any more.
            let left = batches - usize::from(goes);
            assert_eq!(cache.stats(holding).transfer, left, "{batches} of {reserved}");
            assert_eq!(cache.stats(holding).spans, left, "its spans went to the heap");
            // SAFETY: the objects are ours.
            unsafe { cache.store_to_spans(wanting, chain_of(&all)) }.unwrap();
            empty_of_all(cache);
        }
    });
}

#[test]
fn without_a_fresh_span_nobody_lets_go() {
    with_cache(|cache| {
        cache.source().reserve(32 * UNIT);
        let wanting = class_of_size(1024);
        let mine = fetch_all(cache, wanting, 16 * wanting.batch());
        let holding = hold(cache, 16);
        let (batches, singles) = mine.split_at(8 * wanting.batch());
        store_batches(cache, wanting, batches);
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(wanting, chain_of(&singles[1..])) }.unwrap();
        for _ in 0..20 {
            cache.make_way(wanting).unwrap();
        }
        // From batches, and then from a span that is there.
        for wanted in [wanting.batch(), 3] {
            let got = fetch_all(cache, wanting, wanted);
            cache.make_way(wanting).unwrap();
            // SAFETY: as above.
            unsafe { cache.store(wanting, chain_of(&got)) }.unwrap();
        }
        // Objects one by one are asked for by who keeps no caches: they do not count.
        for _ in 0..20 {
            let (one, _) = cache.take_one(class_of_size(47104)).unwrap();
            cache.make_way(class_of_size(47104)).unwrap();
            // SAFETY: as above.
            unsafe { cache.put_one(class_of_size(47104), one.as_ptr()) }.unwrap();
        }
        assert_eq!(cache.stats(holding).transfer, 16);
        store_batches(cache, wanting, &singles[..1]);
        empty_of_all(cache);
        assert_eq!(cache.source().spans_out(), 0);
    });
}

#[test]
fn at_once_16_batches_make_way_and_the_next_fresh_span_makes_more() {
    with_cache(|cache| {
        cache.source().reserve(64 * UNIT);
        // Four and five steps away from the first class.
        let (holding, other) = (Class::from_id(5).unwrap(), Class::from_id(6).unwrap());
        // The last class has as much as is no hoard, a 16th of the heap.
        let far = Class::from_id(CLASSES).unwrap();
        let batches = 4 * UNIT / (far.batch() * far.size());
        store_batches(cache, far, &fetch_all(cache, far, batches * far.batch()));
        assert!(batches >= 16);
        for class in [holding, other] {
            store_batches(cache, class, &fetch_all(cache, class, 200 * class.batch()));
        }
        let wanting = class_of_size(47104);
        let mut all = Vec::new();
        let mut step = |expected: [usize; 2]| {
            all.extend(objects(cache.fetch(wanting, 1)));
            cache.make_way(wanting).unwrap();
            let now = [holding, other].map(|class| cache.stats(class).transfer / class.batch());
            assert_eq!(now, expected);
            // Once for each span.
            cache.make_way(wanting).unwrap();
            assert_eq!(now, expected);
        };
        // The one whose turn it is, and then the next.
        step([184, 200]);
        step([184, 184]);
        // 13 more times until the longest one's turn has come.
        for _ in 0..13 {
            assert_eq!(cache.stats(far).transfer, batches * far.batch());
            step([184, 184]);
        }
        assert_eq!(cache.stats(far).transfer, (batches - 16) * far.batch());
        // Below a 16th of the heap now: nobody lets go any more.
        for _ in 0..30 {
            step([184, 184]);
        }
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(wanting, chain_of(&all)) }.unwrap();
        empty_of_all(cache);
    });
}

#[test]
fn who_wants_room_does_not_make_it_for_itself() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let class = hold(cache, 8);
        let mut more = Vec::new();
        for _ in 0..30 {
            // Straight from a span: a whole batch would be one of those that are held.
            more.push(cache.fetch_one(class).unwrap().0.as_ptr());
            cache.make_way(class).unwrap();
        }
        assert_eq!(held(cache, class), (38, 38, 8));
        let other = class_of_size(47104);
        let theirs = take_fresh_spans(cache, other);
        assert_eq!(cache.stats(class).transfer, 4, "but for others it does");
        // SAFETY: the objects are ours.
        unsafe {
            cache.store_to_spans(class, chain_of(&more)).unwrap();
            cache.store_to_spans(other, chain_of(&theirs)).unwrap();
        }
        empty_of_all(cache);
        assert_eq!(cache.source().spans_out(), 0);
    });
}

#[test]
fn whole_pages_are_made_way_for_as_long_as_much_is_held() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let class = hold(cache, 5);
        assert!(cache.has_batches(class) && !cache.has_batches(class_of_size(8192)));
        let before = cache.stats(class).transfer;
        // Classes have their turn, some at a time.
        for _ in 0..13 {
            cache.make_way_for_pages().unwrap();
        }
        let after = cache.stats(class).transfer;
        assert!(after < before, "{before} {after}");
        // Little is held now, and stays.
        for _ in 0..13 {
            cache.make_way_for_pages().unwrap();
        }
        assert_eq!(cache.stats(class).transfer, after);
    });
}

#[test]
fn the_class_that_hoards_makes_way_first() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        // The last class in turn holds more than a 16th of the heap, the first ones a little.
        let few = [1, 2, 3].map(|id| Class::from_id(id).unwrap());
        for class in few {
            store_batches(cache, class, &fetch_all(cache, class, 4 * class.batch()));
        }
        let hoarder = hold(cache, 22);
        let all = || few.map(|class| cache.stats(class).transfer / class.batch());
        // For whole pages, and for another class's fresh span.
        cache.make_way_for_pages().unwrap();
        assert_eq!((cache.stats(hoarder).transfer, all()), (6, [4; 3]));
        let wanting = class_of_size(47104);
        let more = fetch_all(cache, wanting, 1);
        cache.make_way(wanting).unwrap();
        // Twice as much as the span has, and one batch at least.
        assert!(wanting.pages() * PAGE_SIZE < MAX_SIZE);
        assert_eq!((cache.stats(hoarder).transfer, all()), (5, [4; 3]));
        store_batches(cache, wanting, &more);
        empty_of_all(cache);
    });
}

#[test]
fn who_hoards_makes_way_for_twice_what_is_wanted() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let (hoarder, wanting) = (class_of_size(6016), class_of_size(16384));
        let (batch, span) = (hoarder.batch() * hoarder.size(), wanting.pages() * PAGE_SIZE);
        let batches = 3 * UNIT / batch;
        store_batches(cache, hoarder, &fetch_all(cache, hoarder, batches * hoarder.batch()));
        let one = cache.fetch_one(wanting).unwrap().0.as_ptr();
        cache.make_way(wanting).unwrap();
        let left = cache.stats(hoarder).transfer / hoarder.batch();
        let expected = 2 * span / batch;
        assert!((2..16).contains(&expected), "{expected}");
        assert_eq!(left, batches - expected);
        store_batches(cache, wanting, &[one]);
        empty_of_all(cache);
    });
}

/// It is asked for each 256 KiB that come in, and not for each batch.
#[test]
fn who_comes_to_hoard_is_known_with_the_next_256_kib() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let first = hold(cache, 5);
        let second = class_of_size(8192);
        let batch = second.batch() * second.size();
        let held = |batches: usize| 5 * first.size() + batches * batch;
        // The first number of batches that are more than a 16th of the heap.
        let many = UNIT / batch + 1;
        let pieces = |batches| held(batches) / (256 * 1024);
        assert_eq!(pieces(many), pieces(many - 1));
        store_batches(cache, second, &fetch_all(cache, second, many * second.batch()));
        cache.make_way_for_pages().unwrap();
        assert_eq!(cache.stats(first).transfer, 0, "the one that was known");
        assert_eq!(cache.stats(second).transfer, many * second.batch());
        empty_of_all(cache);
    });
}

#[test]
fn the_class_that_hoards_does_not_make_way_for_itself() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let other = Class::from_id(1).unwrap();
        store_batches(cache, other, &fetch_all(cache, other, 4 * other.batch()));
        let hoarder = hold(cache, 5);
        // Fresh spans of the hoarder's own, while its batches wait: what is asked for is not whole.
        let one = cache.fetch_one(hoarder).unwrap().0.as_ptr();
        cache.make_way(hoarder).unwrap();
        assert_eq!(cache.stats(hoarder).transfer, 5);
        store_batches(cache, hoarder, &[one]);
        empty_of_all(cache);
    });
}

#[test]
fn one_that_hoards_is_found_in_its_turn_where_another_was_named_later() {
    with_cache(|cache| {
        cache.source().reserve(16 * UNIT);
        let first = hold(cache, 36);
        let second = class_of_size(196608);
        store_batches(cache, second, &fetch_all(cache, second, 40));
        let held = || [first, second].map(|class| cache.stats(class).transfer);
        // The one that came last, down to what is no hoard; the other in its turn, and then at once again.
        cache.make_way_for_pages().unwrap();
        assert_eq!(held(), [36, 24]);
        cache.make_way_for_pages().unwrap();
        assert_eq!(held(), [36, 8]);
        let mut calls = 0;
        while held()[0] == 36 {
            cache.make_way_for_pages().unwrap();
            calls += 1;
            assert!(calls <= 13, "{calls}");
        }
        assert_eq!(held()[0], 20);
        cache.make_way_for_pages().unwrap();
        assert_eq!(held()[0], 4);
        empty_of_all(cache);
    });
}

#[test]
fn who_takes_a_fresh_span_makes_others_let_go_where_it_is() {
    with_shards(2, |cache| {
        // A 16th of it is 4 MiB: each shard may hold 2.
        cache.source().reserve(64 * UNIT);
        let (holding, wanting) = (class_of_size(MAX_SIZE), class_of_size(47104));
        let hold = |at: usize, batches: usize| {
            let all: Vec<_> = (0..batches).map(|_| fetch_one(cache.near(at), holding)).collect();
            all.iter().for_each(|&object| store_near(cache.near(at), holding, &[object]));
        };
        let fresh_spans = |at: usize| {
            for _ in 0..13 {
                let all = fetch_near(cache.near(at), wanting, 1);
                cache.near(at).make_way(wanting).unwrap();
                store_each(cache, wanting, all);
            }
        };
        hold(0, 9);
        hold(1, 8);
        fresh_spans(1);
        assert_eq!(cache.stats(holding).transfer, 17, "not more than it may");
        fresh_spans(0);
        assert_eq!((cache.near(0).held_bytes(), cache.near(1).held_bytes()), (2 * UNIT, 2 * UNIT));
        // For whole pages every shard is looked at.
        hold(1, 1);
        (0..13).for_each(|_| cache.make_way_for_pages().unwrap());
        assert_eq!((cache.near(0).held_bytes(), cache.near(1).held_bytes()), (2 * UNIT, 0));
        empty_of_all(cache);
        cache.free_kept_spans();
        assert_eq!((cache.source().spans_out(), cache.held_bytes()), (0, 0));
    });
}
