//! What the central cache promises, one promise a test.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use support::{
    Cache, chain_of, class_of_size, fetch_all, held, objects, store_batches, store_each, with_cache,
};
use tiermalloc_central_cache::Chain;
use tiermalloc_size_class::{Class, PAGE_SIZE, by_size};
use tiermalloc_sync::Patience;

#[test]
fn every_class_serves_whole_spans_of_disjoint_objects_and_takes_them_back() {
    with_cache(|cache| {
        for class in by_size() {
            let all = fetch_all(cache, class, 2 * class.objects() + 1);
            let distinct: BTreeSet<_> = all.iter().map(|&object| object as usize).collect();
            assert_eq!(distinct.len(), all.len());
            let apart = distinct.iter().zip(distinct.iter().skip(1));
            assert!(apart.clone().all(|(a, b)| b - a >= class.size()), "{class:?}");
            assert_eq!(held(cache, class), (3, all.len(), 0));
            store_each(cache, class, all);
            assert_eq!(held(cache, class), (0, 0, 0));
        }
        assert_eq!(cache.source().spans_out(), 0);
        assert_eq!(cache.source().heap_stats().object_pages, 0);
    });
}

#[test]
fn a_fresh_span_is_carved_in_order_of_address() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, class.objects());
        assert!(all.windows(2).all(|pair| pair[1] as usize - pair[0] as usize == 64));
        assert_eq!(all[0] as usize % PAGE_SIZE, 0);
        store_each(cache, class, all);
    });
}

#[test]
fn a_batch_reaches_the_next_thread_as_it_came_the_newest_first() {
    with_cache(|cache| {
        let class = class_of_size(2048);
        let all = fetch_all(cache, class, 3 * class.batch());
        store_batches(cache, class, &all);
        assert_eq!(cache.stats(class).transfer, 3 * class.batch());
        for batch in all.chunks(class.batch()).rev() {
            assert_eq!(objects(cache.fetch(class, class.batch())), batch);
        }
        store_each(cache, class, all);
    });
}

#[test]
fn less_than_a_batch_comes_from_the_spans_and_goes_to_them() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let (batch, spans) = (class.batch(), class.batch() / class.objects());
        let whole = fetch_all(cache, class, batch);
        store_batches(cache, class, &whole);
        assert_eq!(held(cache, class), (spans, batch, batch));
        let some = objects(cache.fetch(class, batch - 1));
        assert_eq!(held(cache, class).2, batch, "a whole batch stays whole");
        assert_eq!(some.len(), class.objects(), "what a fresh span has");
        // SAFETY: the objects are ours.
        unsafe { cache.store(class, chain_of(&some)) }.unwrap();
        assert_eq!(held(cache, class), (spans, batch, batch));
        assert_eq!(cache.drain(class, usize::MAX), Ok(batch));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn objects_come_from_the_fullest_span() {
    with_cache(|cache| {
        // Four spans of eight objects, with 1, 7, 3 and 5 of them free.
        let class = class_of_size(1024);
        let all = fetch_all(cache, class, 32);
        let mut of_span: BTreeMap<usize, Vec<*mut u8>> = BTreeMap::new();
        for object in all {
            of_span.entry(object as usize & !(PAGE_SIZE - 1)).or_default().push(object);
        }
        let spans: Vec<Vec<*mut u8>> = of_span.into_values().collect();
        for (span, free) in spans.iter().zip([1, 7, 3, 5]) {
            store_each(cache, class, span[..free].iter().copied());
        }
        let got = objects(cache.fetch(class, 16));
        let expected: Vec<*mut u8> =
            [&spans[0][..1], &spans[2][..3], &spans[3][..5], &spans[1][..7]].concat();
        assert_eq!(got, expected);
        store_each(cache, class, spans.into_iter().flatten());
    });
}

#[test]
fn a_chain_that_empties_more_spans_than_one_turn_collects_frees_them_all() {
    with_cache(|cache| {
        let class = class_of_size(256 * 1024);
        let all = fetch_all(cache, class, 50);
        assert_eq!(cache.source().spans_out(), 50);
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(class, chain_of(&all)) }.unwrap();
        assert_eq!(cache.source().spans_out(), 0);
        assert_eq!(cache.source().freed.load(Ordering::Relaxed), 50);
    });
}

#[test]
fn an_object_is_known_to_be_zero_exactly_when_it_was_never_handed_out() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        // Another object keeps the span in its class.
        let (keeper, zeroed) = cache.fetch_one(class).unwrap();
        assert!(zeroed, "the first object of fresh memory");
        for _ in 1..class.objects() {
            let (object, zeroed) = cache.fetch_one(class).unwrap();
            assert!(zeroed);
            // SAFETY: the object is ours and 1024 bytes long.
            unsafe {
                let bytes = std::slice::from_raw_parts(object.as_ptr().add(8), 1016);
                assert!(bytes.iter().all(|&byte| byte == 0));
                object.write_bytes(0xff, 1024);
            }
            store_each(cache, class, [object.as_ptr()]);
            let (again, zeroed) = cache.fetch_one(class).unwrap();
            assert_eq!((again, zeroed), (object, false), "handed out before");
        }
        // Back to the heap and out again: the pages are not known to be zero any more.
        let span = keeper.as_ptr() as usize & !(PAGE_SIZE - 1);
        store_each(cache, class, (0..8).map(|i| (span + i * 1024) as *mut u8));
        assert_eq!(held(cache, class), (0, 0, 0));
        let (object, zeroed) = cache.fetch_one(class).unwrap();
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr().add(8), 1016) };
        assert!(!zeroed || bytes.iter().all(|&byte| byte == 0));
        store_each(cache, class, [object.as_ptr()]);
    });
}

#[test]
fn plunder_sends_back_what_nobody_wanted_for_a_whole_period() {
    with_cache(|cache| {
        let class = class_of_size(2048);
        let batch = class.batch();
        let all = fetch_all(cache, class, 4 * batch);
        store_batches(cache, class, &all);
        assert_eq!(cache.plunder(class), Ok(0), "the first look only begins a period");
        store_batches(cache, class, &objects(cache.fetch(class, batch)));
        assert_eq!(cache.plunder(class), Ok(3 * batch), "one batch was wanted");
        assert_eq!(held(cache, class), (batch / class.objects(), batch, batch));
        assert_eq!(cache.plunder(class), Ok(batch));
        assert_eq!(held(cache, class), (0, 0, 0));
        assert_eq!(cache.plunder(class), Ok(0));
    });
}

#[test]
fn plundering_in_turn_comes_past_every_class() {
    with_cache(|cache| {
        let classes = [1, 16, 17, 100, 156, 207, 208].map(|id| Class::from_id(id).unwrap());
        for class in classes {
            store_batches(cache, class, &fetch_all(cache, class, class.batch()));
        }
        // 16 classes at a time: once around begins the periods, and once more ends them.
        for turn in 0..2 * 13 {
            assert!(turn > 12 || classes.iter().all(|&class| cache.stats(class).transfer > 0));
            cache.plunder_next().unwrap();
        }
        assert!(classes.iter().all(|&class| cache.stats(class).transfer == 0));
        assert_eq!(cache.source().spans_out(), 0);
    });
}

#[test]
fn drain_takes_as_many_batches_as_it_is_told() {
    with_cache(|cache| {
        let class = class_of_size(4096);
        let all = fetch_all(cache, class, 3 * class.batch());
        store_batches(cache, class, &all);
        assert_eq!(cache.drain(class, 0), Ok(0));
        assert_eq!(cache.drain(class, 1), Ok(class.batch()));
        assert_eq!(cache.stats(class).transfer, 2 * class.batch());
        assert_eq!(cache.drain(class, usize::MAX), Ok(2 * class.batch()));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn threads_pass_objects_around_and_none_is_lost() {
    with_cache(|cache| {
        let classes = [32, 1024, 24576, 40960].map(class_of_size);
        std::thread::scope(|scope| {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..4).map(|_| channel::<(Class, Vec<usize>)>()).unzip();
            for (me, receiver) in receivers.into_iter().enumerate() {
                let next = senders[(me + 1) % 4].clone();
                let before = (me + 3) % 4;
                scope.spawn(move || {
                    for round in 0..400 {
                        let class = classes[(me + round) % 4];
                        let mine = objects(cache.fetch(class, class.batch()));
                        for &object in &mine {
                            // SAFETY: the object is ours and at least 16 bytes long.
                            unsafe { object.cast::<[usize; 2]>().write([me, object as usize]) };
                        }
                        let sent = mine.into_iter().map(|object| object as usize).collect();
                        next.send((class, sent)).unwrap();
                        receiver.try_iter().for_each(|theirs| take_back(cache, before, theirs));
                    }
                    drop(next);
                    receiver.iter().for_each(|theirs| take_back(cache, before, theirs));
                });
            }
        });
        for class in classes {
            let stats = cache.stats(class);
            assert_eq!(stats.out, stats.transfer, "{class:?}");
            cache.drain(class, usize::MAX).unwrap();
            assert_eq!(held(cache, class), (0, 0, 0));
        }
        assert_eq!(cache.source().spans_out(), 0);
    });
}

/// Checks what thread `from` has written, and stores the objects.
fn take_back(cache: &Cache<'_>, from: usize, (class, theirs): (Class, Vec<usize>)) {
    let theirs: Vec<*mut u8> = theirs.into_iter().map(|object| object as *mut u8).collect();
    for &object in &theirs {
        // SAFETY: the sender gave the object to us.
        assert_eq!(unsafe { object.cast::<[usize; 2]>().read() }, [from, object as usize]);
    }
    // SAFETY: as above.
    unsafe { cache.store(class, chain_of(&theirs)) }.unwrap();
}

#[test]
fn chains_push_pop_and_split_in_order() {
    let mut memory = [[0u64; 2]; 10];
    let objects_in: Vec<*mut u8> = memory.iter_mut().map(|slot| slot.as_mut_ptr().cast()).collect();
    // SAFETY: the slots are ours for the length of the test.
    unsafe {
        for count in 0..12 {
            let mut chain = chain_of(&objects_in);
            let first = chain.split(count);
            assert_eq!(first.count, count.min(10));
            assert_eq!(objects(first), &objects_in[..count.min(10)]);
            assert_eq!(objects(chain), &objects_in[count.min(10)..]);
        }
        let mut none = Chain::EMPTY;
        assert_eq!((none.pop(), none.split(3)), (None, Chain::EMPTY));
    }
}

#[test]
fn what_has_happened_to_a_class_is_counted() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let (batch, objects) = (class.batch(), class.objects());
        let counts = || cache.counts(class, true, &mut Patience::ENDLESS.clone()).unwrap();
        assert_eq!(counts(), Default::default(), "nothing yet");
        // A span and one object more, one at a time: 8 KiB are eight of them.
        let all: Vec<_> = (0..objects + 1).flat_map(|_| fetch_all(cache, class, 1)).collect();
        let now = counts();
        assert_eq!((now.fetches, now.fetched), (objects as u64 + 1, objects as u64 + 1));
        assert_eq!((now.spans, now.out, now.stores, now.transfer_hits), (2, objects + 1, 0, 0));
        assert_eq!(now.survey.by_eighths[8], 1, "a full one");
        assert_eq!(now.survey.by_eighths.iter().sum::<usize>(), 2);
        assert_eq!(now.survey.never_taken, objects - 1);
        store_each(cache, class, all);
        let now = counts();
        assert_eq!((now.spans, now.out, now.stored), (0, 0, objects as u64 + 1));
        assert_eq!(now.stores, objects as u64 + 1);
        // Two batches into the transfer cache, one of which is wanted again and one is not.
        let before = counts();
        let all = fetch_all(cache, class, 2 * batch);
        store_batches(cache, class, &all);
        let again = fetch_all(cache, class, batch);
        assert_eq!(counts().transfer_hits, before.transfer_hits + 1);
        assert_eq!(cache.drain(class, 1), Ok(batch));
        let now = counts();
        assert_eq!((now.transfer, now.drained), (0, before.drained + 1));
        assert_eq!(now.fetched - before.fetched, 3 * batch as u64);
        assert_eq!((now.stores - before.stores, now.stored - before.stored), (2, 2 * batch as u64));
        assert_eq!(now.fetched - now.stored, batch as u64, "what is out");
        assert_eq!((now.transfer_waits, now.span_waits), (0, 0));
        let without = cache.counts(class, false, &mut Patience::ms(0)).unwrap();
        assert_eq!(without.survey, Default::default());
        store_each(cache, class, again);
        // Of a lock that somebody keeps nothing is heard.
        cache.lock_for_fork();
        assert_eq!(cache.counts(class, false, &mut Patience::ms(2)), None);
        // SAFETY: taken above.
        unsafe { cache.unlock_after_fork() };
    });
}

#[test]
fn pages_that_nobody_has_touched_are_known() {
    with_cache(|cache| {
        // 34 KiB each: a span has nine pages or more.
        let class = class_of_size(34 * 1024);
        let one = fetch_all(cache, class, 1);
        let counts = cache.counts(class, true, &mut Patience::ENDLESS.clone()).unwrap();
        let touched = class.size().div_ceil(PAGE_SIZE);
        assert_eq!(counts.survey.untouched_pages, class.pages() - touched);
        store_each(cache, class, one);
    });
}
