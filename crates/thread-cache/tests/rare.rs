//! Classes of large objects that are seldom called for have no room in a bin.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{Objects, Registry, STEPS, Thread, calls_to_earn, class_of_size, classes, plenty};
use tiermalloc_central_cache::{CentralCache, Misuse};
use tiermalloc_page_heap::{OsPages, PageHeap, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_sync::DefaultRawMutex;

#[test]
fn what_is_called_for_earns_its_room_by_its_size() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    for class in classes() {
        let thread = Thread::new(&source, &budget, &registry);
        let calls = calls_to_earn(class);
        for _ in 0..calls / 2 {
            let object = thread.alloc(class);
            assert_eq!((thread.cache.cached(class), thread.cache.used()), (0, 0));
            thread.free(class, object);
            assert_eq!(thread.cached(), (0, 0), "{class:?}");
        }
        // An odd number: the object's birth is the last call, and it stays when it is freed.
        let object = thread.alloc(class);
        assert_eq!(thread.cache.used() == 0, calls % 2 == 1, "{class:?}");
        thread.free(class, object);
        assert!(thread.cache.cached(class) > 0, "{class:?}");
        source.forget();
        let again = thread.alloc(class);
        assert_eq!((again, source.books().fetches.len()), (object, 0));
        thread.free(class, again);
        thread.retire().unwrap();
        assert_eq!(source.out(), 0);
    }
}

#[test]
fn who_only_frees_earns_room_too() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    for class in classes().filter(|class| class.size() >= 256) {
        let thread = Thread::new(&source, &budget, &registry);
        for _ in 0..calls_to_earn(class) {
            thread.free(class, source.fetch_one(class));
            assert_eq!(thread.cached(), (0, 0), "{class:?}");
        }
        thread.free(class, source.fetch_one(class));
        assert_eq!(thread.cache.cached(class), 1, "{class:?}");
        thread.retire().unwrap();
    }
}

#[test]
fn a_scavenge_forgets_an_eighth_of_what_was_earned_and_the_end_of_a_bin_nothing() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let (class, steps) = (class_of_size(32768), class_of_size(262144));
    let calls_until_room = || {
        let mut calls = 0;
        while thread.cache.cached(class) == 0 {
            thread.free(class, source.fetch_one(class));
            calls += 1;
        }
        thread.flush_all();
        calls - 1
    };
    assert_eq!(calls_until_room(), 128);
    assert_eq!(calls_until_room(), 0, "the bin was emptied, and is wanted again");
    for (scavenges, expected) in [(1, 16), (2, 30), (40, 128)] {
        // A slow step each.
        let mut kept = Vec::new();
        (0..scavenges * (STEPS + 1)).for_each(|_| kept.push(source.fetch_one(steps)));
        let before = source.books().tends;
        kept.into_iter().for_each(|object| thread.free(steps, object));
        assert_eq!(source.books().tends, before + scavenges);
        assert_eq!(calls_until_room(), expected, "after {scavenges}");
    }
}

#[test]
fn what_has_room_forgets_nothing() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let (class, steps) = (class_of_size(32768), class_of_size(262144));
    thread.earn(class);
    for _ in 0..20 {
        // It is in use at each scavenge, and so keeps its room.
        let object = thread.alloc(class);
        let kept: Vec<_> = (0..=STEPS).map(|_| source.fetch_one(steps)).collect();
        kept.into_iter().for_each(|object| thread.free(steps, object));
        thread.free(class, object);
    }
    thread.flush_all();
    thread.free(class, source.fetch_one(class));
    assert_eq!(thread.cache.cached(class), 1);
    thread.retire().unwrap();
}

#[test]
fn what_was_freed_is_not_kept_when_it_is_freed_again() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
        CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    let (budget, registry) = (plenty(), Registry::new());
    for class in [272, 1024, 8192].map(class_of_size) {
        let thread = Thread::new(&CENTRAL, &budget, &registry);
        // So that the spans stay, whatever comes home.
        let mut all: Vec<_> =
            (0..=calls_to_earn(class)).map(|_| CENTRAL.fetch(class, 1).head).collect();
        let last = all.pop().unwrap();
        all.iter().for_each(|&object| thread.free(class, object));
        let again = *all.last().unwrap();
        // Where its span is empty, nothing is known of it.
        let answer = thread.try_free(class, again);
        let seen = [Misuse::DoubleFree(again, class), Misuse::Foreign(again, class)];
        assert!(answer.is_err_and(|misuse| seen.contains(&misuse)), "{answer:?}");
        assert_eq!(thread.cache.cached(class), 0);
        thread.free(class, last);
        assert_eq!(thread.cache.cached(class), 1, "a live one is");
        thread.retire().unwrap();
    }
}

#[test]
fn a_large_object_that_was_wanted_once_goes_back_to_the_page_heap_whole() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
        CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    let (budget, registry) = (plenty(), Registry::new());
    let thread = Thread::new(&CENTRAL, &budget, &registry);
    for class in classes().filter(|class| class.size() >= 512) {
        let object = thread.alloc(class);
        assert_eq!(CENTRAL.source().stats().object_pages, class.pages());
        thread.free(class, object);
        assert_eq!(CENTRAL.source().stats().object_pages, 0, "{class:?}");
    }
    assert_eq!(
        (thread.cached(), thread.cache.used(), CENTRAL.near(0).held_bytes()),
        ((0, 0), 0, 0)
    );
    thread.retire().unwrap();
}
