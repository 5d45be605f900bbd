//! What the thread cache promises, one promise a test.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use support::{
    Fault, MIB, Objects, Registry, STEPS, Thread, class_of_size, classes, plenty, slow_steps,
};
use tiermalloc_central_cache::CentralCache;
use tiermalloc_page_heap::{OsPages, PageHeap, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{CLASSES, SLOTS};
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Budget, ThreadCache};

#[test]
fn an_all_zero_cache_is_empty_and_full_and_never_written_to() {
    let mut memory = MaybeUninit::<ThreadCache>::zeroed();
    let cache = memory.as_mut_ptr();
    let mut object = [7u64; 2];
    for id in 0..SLOTS {
        // SAFETY: all zero is an empty cache, which nobody else uses.
        unsafe {
            assert!(ThreadCache::pop(cache, id).is_null());
            assert!(!ThreadCache::push(cache, id, object.as_mut_ptr().cast()));
        }
    }
    assert_eq!(object, [7; 2], "an object that was refused is not touched");
    // SAFETY: it was zeroed, every byte of it.
    let bytes = unsafe {
        std::slice::from_raw_parts(cache.cast::<u8>().cast_const(), size_of::<ThreadCache>())
    };
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn a_cache_fits_one_page() {
    assert!(size_of::<ThreadCache>() <= tiermalloc_size_class::PAGE_SIZE);
}

#[test]
fn the_first_refill_fetches_one_object_or_whole_lines_and_each_further_one_twice_as_many() {
    let (budget, registry) = (plenty(), Registry::new());
    for class in classes() {
        let source = Objects::new();
        let thread = Thread::new(&source, &budget, &registry);
        let mut kept = Vec::new();
        thread.earn(class);
        source.forget();
        while source.books().fetches.len() < 9 {
            kept.push(thread.alloc(class));
            thread.check_bounds();
        }
        let wanted: Vec<usize> = source.books().fetches.iter().map(|fetch| fetch.1).collect();
        let first = if class.size() < 64 { 8 } else { 1 };
        let doubling = (0..9).map(|refill| (first << refill).min(class.batch()));
        assert_eq!(wanted, doubling.collect::<Vec<_>>(), "{class:?}");
        kept.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
        assert_eq!(source.out(), 0);
    }
    assert_eq!(budget.unclaimed(), 64 * MIB);
}

#[test]
fn objects_are_reused_last_in_first_out() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(48);
    let all: Vec<_> = (0..20).map(|_| thread.alloc(class)).collect();
    all.iter().for_each(|&object| thread.free(class, object));
    let again: Vec<_> = (0..20).map(|_| thread.alloc(class)).collect();
    assert!(all.iter().rev().eq(&again));
    all.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
}

#[test]
fn a_thread_that_only_frees_keeps_a_batch_and_sends_whole_batches() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let (maker, freer) =
        (Thread::new(&source, &budget, &registry), Thread::new(&source, &budget, &registry));
    for class in [16, 1024, 8192, 28672, 262144].map(class_of_size) {
        let batch = class.batch();
        let all: Vec<_> = (0..10 * batch).map(|_| maker.alloc(class)).collect();
        freer.earn(class);
        source.forget();
        for object in all {
            freer.free(class, object);
            freer.check_bounds();
            assert!(freer.cache.cached(class) <= batch, "{class:?}");
        }
        let books = source.books();
        // The first one of a class smaller than a cache line is let go at once.
        let alone = (class.size() < 64).then_some((class, 1));
        let expected: Vec<_> =
            alone.into_iter().chain(std::iter::repeat_n((class, batch), 9)).collect();
        assert_eq!(books.stores, expected, "{class:?}");
    }
    maker.retire().unwrap();
    freer.retire().unwrap();
    assert_eq!(source.out(), 0);
}

#[test]
fn the_first_foreign_object_of_a_class_smaller_than_a_line_goes_on_and_the_next_ones_stay() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    for class in classes() {
        let thread = Thread::new(&source, &budget, &registry);
        let foreign: [_; 4] = std::array::from_fn(|_| source.fetch_one(class));
        if class.size() >= 256 {
            thread.earn(class);
        }
        source.forget();
        thread.free(class, foreign[0]);
        let alone = class.size() < 64;
        assert_eq!((source.stored() == 1, thread.cache.cached(class) == 0), (alone, alone));
        thread.free(class, foreign[1]);
        // Where one is a batch, there is room for no more.
        assert_eq!(source.stored(), usize::from(alone || class.batch() == 1), "{class:?}");
        // Whoever has begun with a class of its own accord keeps what comes.
        thread.flush_all();
        let own = thread.alloc(class);
        let cached = thread.cache.cached(class);
        source.forget();
        thread.free(class, own);
        assert_eq!((source.stored(), thread.cache.cached(class)), (0, cached + 1), "{class:?}");
        // And once it has none any more it begins again.
        thread.flush_all();
        source.forget();
        thread.free(class, foreign[2]);
        assert_eq!(source.stored() == 1, alone, "{class:?}");
        thread.free(class, foreign[3]);
        thread.retire().unwrap();
        assert_eq!(source.out(), 0);
    }
}

#[test]
fn after_each_fetch_that_brought_anything_way_is_made_for_its_class() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let mut kept = Vec::new();
    for class in [16, 1024, 28672].map(class_of_size) {
        kept.extend((0..100).map(|_| (class, thread.alloc(class))));
    }
    let fetches: Vec<_> = source.books().fetches.iter().map(|&(of, _, got)| (of, got)).collect();
    assert_eq!(source.books().ways, fetches);
    // What comes back from the bin, or from nowhere, is no occasion.
    source.forget();
    let class = class_of_size(2048);
    source.fault(Some(Fault::Refuse { n: 1, count: 1 }));
    assert!(thread.alloc(class).is_null());
    let (last, object) = kept.swap_remove(0);
    thread.free(last, object);
    kept.push((last, thread.alloc(last)));
    assert_eq!(source.books().ways, []);
    kept.into_iter().for_each(|(class, object)| thread.free(class, object));
    thread.retire().unwrap();
    assert_eq!(source.out(), 0);
}

#[test]
fn a_bin_that_overflows_again_and_again_shrinks_to_two_batches_at_most() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let (maker, thread) =
        (Thread::new(&source, &budget, &registry), Thread::new(&source, &budget, &registry));
    let class = class_of_size(64);
    let batch = class.batch();
    // Refills give the bin room for ten batches.
    let own: Vec<_> = (0..10 * batch).map(|_| thread.alloc(class)).collect();
    let room = thread.cache.used() / 64;
    assert!(room > 8 * batch, "{room}");
    own.into_iter().for_each(|object| thread.free(class, object));
    // Sixteen overflows do not count, each further one takes a batch.
    for _ in 0..(16 + 10) * batch {
        thread.free(class, maker.alloc(class));
    }
    assert!(thread.cache.used() / 64 < 2 * batch, "{}", thread.cache.used() / 64);
    thread.check_bounds();
    thread.retire().unwrap();
    maker.retire().unwrap();
    assert_eq!(source.out(), 0);
}

#[test]
fn a_scavenge_sends_back_what_lay_below_the_low_water_mark_and_keeps_what_was_used() {
    let registry = Registry::new();
    for used_batches in [0, 1, 3] {
        let (source, budget) = (Objects::new(), Budget::new(128 * 1024, 128 * 1024));
        let thread = Thread::new(&source, &budget, &registry);
        let class = class_of_size(64);
        let used = used_batches * class.batch();
        let all: Vec<_> = (0..300).map(|_| thread.alloc(class)).collect();
        all.into_iter().for_each(|object| thread.free(class, object));
        let full = thread.cache.cached(class);
        assert!(full > 250);
        // Over exactly one scavenge, which puts what lies in the bin aside.
        slow_steps(&thread, STEPS);
        assert_eq!(thread.cache.cached(class), full);
        source.forget();
        // Over two more, between which so many objects go in and out again and again.
        for _ in 0..4 {
            let swing: Vec<_> = (0..used).map(|_| thread.alloc(class)).collect();
            swing.into_iter().for_each(|object| thread.free(class, object));
            slow_steps(&thread, STEPS / 2 + 1);
        }
        let books = source.books();
        let stored: usize = books.stores.iter().filter(|s| s.0 == class).map(|s| s.1).sum();
        assert!(books.fetches.iter().all(|fetch| fetch.0 != class));
        drop(books);
        assert_eq!(thread.cache.cached(class), used, "what was used stays, what was idle went");
        assert_eq!(stored, full - used);
        thread.check_bounds();
        thread.retire().unwrap();
        assert_eq!((source.out(), budget.unclaimed()), (0, 128 * 1024));
    }
}

#[test]
fn an_idle_bin_is_empty_after_two_scavenges_and_its_capacity_is_free() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(128 * 1024, 128 * 1024);
    let thread = Thread::new(&source, &budget, &registry);
    for class in [32, 48, 640].map(class_of_size) {
        let all: Vec<_> = (0..70).map(|_| thread.alloc(class)).collect();
        all.into_iter().for_each(|object| thread.free(class, object));
    }
    assert!(thread.cached().0 > 100);
    let before = source.books().tends;
    slow_steps(&thread, 2 * STEPS + 1);
    assert_eq!(thread.cached(), (0, 0));
    assert!((2..=3).contains(&(source.books().tends - before)), "once a scavenge");
    assert_eq!((source.out(), thread.cache.used()), (0, 0));
}

#[test]
fn what_is_aside_serves_before_the_source_is_asked() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(128 * 1024, 128 * 1024);
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(64);
    let all: Vec<_> = (0..200).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    slow_steps(&thread, STEPS);
    source.forget();
    let cached = thread.cache.cached(class);
    assert!(cached > 150, "one scavenge sends nothing away: {cached}");
    let again: BTreeSet<_> = (0..cached).map(|_| thread.alloc(class)).collect();
    assert_eq!(again.len(), cached);
    assert!(source.books().fetches.iter().all(|fetch| fetch.0 != class));
    again.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
}

#[test]
fn the_end_of_a_cache_returns_every_object_and_the_whole_limit() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    for class in classes() {
        let all: Vec<_> = (0..5).map(|_| thread.alloc(class)).collect();
        all.into_iter().for_each(|object| thread.free(class, object));
    }
    slow_steps_by_growth(&thread);
    assert_eq!(source.books().tends, 1, "one in the middle");
    assert!(thread.cached().0 > CLASSES);
    thread.retire().unwrap();
    assert_eq!((thread.cached(), thread.cache.used(), thread.cache.limit()), ((0, 0), 0, 0));
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

/// A scavenge in the middle, so that some objects are aside.
fn slow_steps_by_growth<S: tiermalloc_thread_cache::ObjectSource>(thread: &Thread<'_, S>) {
    let class = class_of_size(16);
    let all: Vec<_> = (0..20 * STEPS).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
}

#[test]
fn flushing_empties_every_bin_and_the_cache_goes_on() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    for _ in 0..3 {
        for class in classes() {
            let object = thread.alloc(class);
            thread.free(class, object);
        }
        thread.flush_all();
        assert_eq!((source.out(), thread.cached(), thread.cache.used()), (0, (0, 0), 0));
    }
    thread.retire().unwrap();
}

#[test]
fn what_a_scavenge_sends_back_takes_its_room_with_it() {
    let (source, registry) = (Objects::new(), Registry::new());
    // So that nothing but the scavenge takes room away.
    let budget = Budget::new(usize::MAX / 2, usize::MAX / 2);
    let thread = Thread::new(&source, &budget, &registry);
    let (class, other) = (class_of_size(64), class_of_size(256 * 1024));
    let all: Vec<_> = (0..255).map(|_| thread.alloc(class)).collect();
    all.iter().for_each(|&object| thread.free(class, object));
    assert!(thread.cache.cached(class) > 200);
    // A slow step each, and not one of them fetches what the last one brought.
    (0..2 * STEPS).for_each(|_| assert!(!thread.alloc(other).is_null()));
    assert_eq!(thread.cache.cached(class), 0);
    let all: Vec<_> = (0..255).map(|_| source.fetch_one(class)).collect();
    // SAFETY: the cache is this thread's, the object ours.
    let fits = |object: &*mut u8| unsafe { ThreadCache::push(&*thread.cache, class.id(), *object) };
    assert!(all.iter().take_while(|object| fits(object)).count() < 2 * class.batch());
}

#[test]
fn over_the_central_cache_and_the_page_heap_threads_leave_nothing_behind() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
        CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    let (budget, registry) = (Budget::shared(MIB, MIB / 2, 4096), Registry::new());
    for round in 1..4usize {
        // What one thread allocates, the next one frees.
        let (sender, receiver) = std::sync::mpsc::channel();
        let (budget, registry) = (&budget, &registry);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let thread = Thread::new(&CENTRAL, budget, registry);
                for n in 0..3 * CLASSES * round {
                    let class = classes().nth(n * 7 % CLASSES).unwrap();
                    sender.send((class, thread.alloc(class) as usize)).unwrap();
                    thread.check_bounds();
                }
                thread.retire().unwrap();
                drop(sender);
            });
            scope.spawn(move || {
                let thread = Thread::new(&CENTRAL, budget, registry);
                for (class, object) in receiver {
                    thread.free(class, object as *mut u8);
                    thread.check_bounds();
                }
                thread.retire().unwrap();
            });
        });
        for class in classes() {
            let stats = CENTRAL.stats(class);
            assert_eq!(stats.out, stats.transfer, "{class:?}");
            CENTRAL.drain(class, usize::MAX).unwrap();
            assert_eq!(CENTRAL.stats(class).spans, 0);
        }
        assert_eq!(CENTRAL.source().stats().object_pages, 0);
    }
}
