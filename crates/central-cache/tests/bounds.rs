//! How much waits in the transfer caches, in which order it leaves, and who is told of it.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;
use std::sync::Barrier;

use support::{
    Cache, KIB, MIB, Spans, chain_of, class_of_size, empty_of_all, fetch_all, fetch_one, held,
    objects, store_batches, store_near, with_cache, with_shards,
};
use tiermalloc_central_cache::{CentralCache, SpanSource, spread};
use tiermalloc_page_heap::Span;
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, MAX_SIZE, by_size};
use tiermalloc_sync::DefaultRawMutex;

/// Stores one batch of `class` after the other until one goes to the spans. Returns how many stayed.
fn fill(cache: &Cache<'_>, class: Class, most: usize) -> usize {
    let all = fetch_all(cache, class, (most + 1) * class.batch());
    let mut kept = 0;
    for batch in all.chunks(class.batch()) {
        let before = cache.stats(class);
        store_batches(cache, class, batch);
        let now = cache.stats(class);
        let (stays, goes) = (now.transfer > before.transfer, now.out < before.out);
        assert!(stays != goes, "{class:?}: in one place");
        if goes {
            assert_eq!(before.out - now.out, class.batch(), "{class:?}");
        } else {
            kept += 1;
            assert_eq!(now.transfer, kept * class.batch(), "{class:?}: whole batches");
        }
    }
    kept
}

fn empty(cache: &Cache<'_>, class: Class) {
    cache.drain(class, usize::MAX).unwrap();
    assert_eq!(held(cache, class), (0, 0, 0));
}

#[test]
fn every_class_may_hold_264_kib_however_small_the_heap() {
    with_cache(|cache| {
        for class in by_size() {
            let room = 264 * KIB / (class.batch() * class.size());
            assert_eq!(fill(cache, class, room + 1), room, "{class:?}");
            empty(cache, class);
        }
    });
}

#[test]
fn a_class_may_hold_as_much_as_a_larger_heap() {
    with_cache(|cache| {
        for reserved in [265 * KIB, 2 * MIB, 5 * MIB] {
            cache.source().reserve(reserved);
            for class in [16, 56, 1024, 2304, 6144, 40960, MAX_SIZE].map(class_of_size) {
                let room = reserved / (class.batch() * class.size());
                assert_eq!(fill(cache, class, room + 1), room, "{class:?} of {reserved}");
                empty(cache, class);
            }
        }
    });
}

#[test]
fn what_a_class_holds_beyond_a_bound_that_has_sunk_stays_and_no_more_comes() {
    with_cache(|cache| {
        let class = class_of_size(8192);
        cache.source().reserve(2 * MIB);
        assert_eq!(fill(cache, class, 128), 128);
        cache.source().reserve(0);
        assert_eq!(cache.stats(class).transfer, 128 * class.batch());
        let batch = objects(cache.fetch(class, class.batch()));
        store_batches(cache, class, &batch);
        assert_eq!(cache.stats(class).transfer, 127 * class.batch(), "it went to the spans");
        empty(cache, class);
    });
}

#[test]
fn batches_without_number_come_back_the_newest_first() {
    with_cache(|cache| {
        cache.source().reserve(usize::MAX);
        // Of those that have one word, of the smallest ones that have two, and of others.
        for class in [8, 16, 24, 208, 3072].map(class_of_size) {
            let batch = class.batch();
            let all = fetch_all(cache, class, 120 * batch);
            let mut left: Vec<&[*mut u8]> = all.chunks(batch).collect();
            let mut stack: Vec<&[*mut u8]> = Vec::new();
            // Up and down, and to nothing.
            for (up, down) in [(27, 2), (3, 1), (2, 3), (40, 30), (60, 40), (10, 66), (33, 0)] {
                for _ in 0..up {
                    let objects = left.pop().unwrap();
                    store_batches(cache, class, objects);
                    stack.push(objects);
                }
                for _ in 0..down {
                    let newest = stack.pop().unwrap();
                    assert_eq!(objects(cache.fetch(class, batch)), newest, "{class:?}");
                    left.push(newest);
                }
                assert_eq!(cache.stats(class).transfer, stack.len() * batch, "{class:?}");
            }
            left.iter().for_each(|objects| store_batches(cache, class, objects));
            assert_eq!(cache.drain(class, 50), Ok(50 * batch));
            assert_eq!(cache.stats(class).transfer, 70 * batch);
            empty(cache, class);
        }
    });
}

#[test]
fn each_gets_his_own_batches_back_and_then_those_of_others() {
    with_cache(|cache| {
        for class in [8, 16, 3072].map(class_of_size) {
            let batch = class.batch();
            let all = fetch_all(cache, class, 12 * batch);
            let batches: Vec<&[*mut u8]> = all.chunks(batch).collect();
            // By turns, so that the newest one is not one's own.
            for turn in 0..4 {
                for who in 0..3 {
                    store_near(cache.near(spread(who)), class, batches[4 * who + turn]);
                }
            }
            assert_eq!(cache.stats(class).transfer, 12 * batch);
            let get = |who| objects(cache.near(spread(who)).fetch(class, batch));
            for turn in (0..3).rev() {
                for who in 0..2 {
                    assert_eq!(get(who), batches[4 * who + turn + 1], "{class:?} {who} {turn}");
                }
            }
            // One each of the first two is left, and four of the third one.
            assert_eq!([get(1), get(0)], [batches[4], batches[0]]);
            let rest = [get(0), get(1), get(2), get(3)];
            assert_eq!(rest, [batches[11], batches[10], batches[9], batches[8]]);
            assert_eq!(cache.stats(class).transfer, 0);
            all.chunks(batch).for_each(|objects| store_batches(cache, class, objects));
            empty(cache, class);
        }
    });
}

#[test]
fn who_has_none_of_his_own_gets_what_came_last() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 2 * class.batch());
        let (first, second) = all.split_at(class.batch());
        for (earlier, later) in [(1, 2), (2, 1), (3, 2), (1, 3)] {
            store_near(cache.near(spread(earlier)), class, first);
            store_near(cache.near(spread(later)), class, second);
            let get = || objects(cache.near(spread(0)).fetch(class, class.batch()));
            assert_eq!((get(), get()), (second.to_vec(), first.to_vec()), "{earlier} {later}");
        }
        all.chunks(class.batch()).for_each(|objects| store_batches(cache, class, objects));
        empty(cache, class);
    });
}

#[test]
fn what_another_one_stored_is_drained_like_ones_own() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 8 * class.batch());
        for (who, batch) in all.chunks(class.batch()).enumerate() {
            store_near(cache.near(spread(who)), class, batch);
        }
        let plundered = |batches| Ok(batches * class.batch());
        assert_eq!(cache.near(spread(1)).drain(class, 3), plundered(3));
        assert_eq!(cache.plunder(class), plundered(0), "they were wanted");
        assert_eq!(cache.plunder(class), plundered(5));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn what_all_transfer_caches_may_hold_is_divided_among_the_shards() {
    with_shards(4, |cache| {
        let class = class_of_size(MAX_SIZE);
        let one = class.size();
        let fill = |expected: usize| {
            for at in 0..4 {
                let all: Vec<_> = (0..20).map(|_| fetch_one(cache.near(at), class)).collect();
                all.iter().for_each(|&object| store_near(cache.near(at), class, &[object]));
                assert_eq!(cache.near(at).held_bytes(), expected * one);
                let all = (at + 1) * expected * one;
                assert_eq!(cache.held_bytes(), all);
                // Each of the others may have a MiB that it has not told of.
                assert!(cache.near(at).held_about().abs_diff(all) <= at * MIB);
                assert!(cache.near(3).held_about().abs_diff(all) <= (at + 1).min(3) * MIB);
            }
            empty_of_all(cache);
            cache.free_kept_spans();
            assert_eq!((cache.source().spans_out(), cache.held_bytes()), (0, 0));
        };
        cache.source().reserve(usize::MAX);
        for (room, batches) in [(16 * one, 4), (20 * one - 1, 4), (20 * one, 5), (3 * one, 0)] {
            cache.source().make_room(room);
            fill(batches);
        }
        cache.source().make_room(usize::MAX);
        // A quarter of the heap, or 264 KiB.
        for (reserved, batches) in [(33 * MIB / 4, 8), (17 * MIB / 8, 2), (MIB, 1), (0, 1)] {
            cache.source().reserve(reserved);
            fill(batches);
        }
    });
}

#[test]
fn the_source_is_told_each_time_that_what_is_held_comes_past_2_mib() {
    with_cache(|cache| {
        cache.source().reserve(usize::MAX);
        let class = class_of_size(MAX_SIZE);
        let all = fetch_all(cache, class, 20);
        for (n, object) in all.iter().enumerate() {
            assert_eq!(cache.source().told(), n / 8);
            store_batches(cache, class, &[*object]);
        }
        assert_eq!(cache.source().told(), 2, "of 5 MiB");
        // Down to 4 MiB and up again: nothing. Below, and up again: once.
        for (down, told) in [(4, 2), (5, 3)] {
            let some = fetch_all(cache, class, down);
            store_batches(cache, class, &some);
            assert_eq!(cache.source().told(), told);
        }
        // What finds no room is not held.
        cache.source().reserve(0);
        let some = fetch_all(cache, class, 4 + 1);
        store_batches(cache, class, &some);
        assert_eq!((cache.stats(class).transfer, cache.source().told()), (15, 3));
        empty(cache, class);
    });
}

/// A source that does what it must, and says nothing.
struct Silent<'a, 'm>(&'a Spans<'m>);

// SAFETY: the spans' word, which this passes on.
unsafe impl SpanSource for Silent<'_, '_> {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        self.0.alloc_span(class)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.free_span(span) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.0.span_of(address)
    }
}

/// Stores so many of the largest objects in a cache over that source and returns how many wait.
fn waiting<S: SpanSource>(source: S, count: usize) -> usize {
    let cache: Box<CentralCache<DefaultRawMutex, S>> = Box::new(CentralCache::new(source));
    let class = class_of_size(MAX_SIZE);
    let all: Vec<_> = (0..count).map(|_| cache.fetch(class, 1)).collect();
    for one in all {
        assert_eq!(one.count, 1);
        // SAFETY: the object is ours.
        unsafe { cache.store(class, one) }.unwrap();
    }
    let waiting = cache.stats(class).transfer;
    assert_eq!(cache.drain(class, usize::MAX), Ok(waiting));
    waiting
}

#[test]
fn a_source_that_says_nothing_sets_no_bound() {
    let map = PageMap::boxed();
    let spans = Spans::new(&map);
    spans.reserve(0);
    assert_eq!(waiting(Silent(&spans), 50), 50);
    assert_eq!((spans.told(), spans.spans_out()), (0, 0));
}

#[test]
fn a_reference_to_a_source_says_what_the_source_says() {
    let map = PageMap::boxed();
    let spans = Spans::new(&map);
    spans.reserve(17 * MIB / 8);
    assert_eq!(waiting(&spans, 50), 8);
    assert_eq!((spans.told(), spans.spans_out()), (1, 0));
}

#[test]
fn the_page_heap_says_how_much_it_has_reserved() {
    let map = PageMap::boxed();
    let spans = Spans::new(&map);
    let heap = spans.heap();
    assert_eq!(waiting(heap, 2), 2);
    assert_eq!(waiting(heap, 200), 200);
    assert!(heap.reserved_bytes() >= 200 * MAX_SIZE);
    assert_eq!(heap.stats().object_pages, 0);
}

/// How many bytes the cache believes to hold, once it holds nothing: so much less has to come until the source
/// is told.
fn believed(cache: &Cache<'_>) -> isize {
    let class = class_of_size(16);
    let batch = class.batch() * class.size();
    let told = cache.source().told();
    let all = fetch_all(cache, class, (2 * MIB / batch + 8) * class.batch());
    let mut batches = all.chunks(class.batch());
    let mut stored = 0;
    while cache.source().told() == told {
        store_batches(cache, class, batches.next().expect("told in time"));
        stored += batch;
    }
    batches.for_each(|objects| store_batches(cache, class, objects));
    empty_of_all(cache);
    (2 * MIB) as isize - stored as isize
}

#[test]
fn what_is_held_is_counted_exactly_whatever_comes_and_goes_in_whichever_threads() {
    with_cache(|cache| {
        cache.source().reserve(64 * MIB);
        assert_eq!(believed(cache), 0);
        let together = Barrier::new(4);
        std::thread::scope(|scope| {
            for me in 0..4usize {
                let together = &together;
                scope.spawn(move || {
                    let classes = [16, 512, 4096, 65536, MAX_SIZE].map(class_of_size);
                    let mut random = 88172645463325252u64 + me as u64;
                    let mut mine: Vec<(Class, Vec<*mut u8>)> = Vec::new();
                    together.wait();
                    for _ in 0..4000 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let pick = (random >> 20) as usize;
                        let class = classes[pick % 5];
                        match pick / 5 % 8 {
                            0..3 => mine.push((class, objects(cache.fetch(class, class.batch())))),
                            3 => drop(cache.plunder(class)),
                            4 => drop(cache.make_way(class)),
                            _ if mine.is_empty() => {}
                            _ => {
                                let (class, objects) = mine.swap_remove(pick / 40 % mine.len());
                                // SAFETY: the objects are ours.
                                unsafe { cache.store(class, chain_of(&objects)) }.unwrap();
                            }
                        }
                    }
                    for (class, objects) in mine {
                        // SAFETY: as above.
                        unsafe { cache.store(class, chain_of(&objects)) }.unwrap();
                    }
                });
            }
        });
        empty_of_all(cache);
        assert_eq!(cache.source().spans_out(), 0);
        assert_eq!(believed(cache), 0);
    });
}
