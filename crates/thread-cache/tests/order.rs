//! What a long run frees goes home, so that it is given out in order: all of it where there is one thread, of several what lies in none.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{MIB, Objects, Registry, STEPS, Thread, class_of_size, plenty, slow_steps};
use tiermalloc_central_cache::{CentralCache, Chain, Near};
use tiermalloc_page_heap::{OsPages, PageHeap, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, PAGE_SIZE};
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Budget, ObjectSource};

type Heap = PageHeap<'static, DefaultRawMutex, OsPages>;
type Central = CentralCache<DefaultRawMutex, Heap>;

/// Objects that a bin has room for at most.
const BIN: usize = 8192;
/// Batches that wait where nobody takes them.
const ENOUGH: usize = 16;
/// Bytes that are held altogether where order counts.
const MUCH: usize = 2 * MIB;
/// Overflows in a row that make a long run.
const LONG_RUN: usize = 16;

/// Steps through `0..count` that land on each number once, far from the one before.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    // Coprime: the count is no multiple of that prime.
    assert_ne!(count % 10_007, 0);
    (0..count).map(move |n| n * 10_007 % count)
}

/// Objects of which each lies at least `apart` bytes from its neighbours in the order of freeing.
fn objects_apart(source: &Objects, class: Class, count: usize, apart: usize) -> Vec<*mut u8> {
    let mut all: Vec<_> = (0..count).map(|_| source.fetch_one(class)).collect();
    all.sort();
    let order: Vec<_> = scattered(count).map(|n| all[n]).collect();
    let far = |two: &[*mut u8]| (two[0] as usize).abs_diff(two[1] as usize) > apart;
    assert!(order.windows(2).all(far));
    order
}

/// Slow steps from one look around to the next, of which eight make sure that nobody else is at work.
const LOOK: usize = 241;

/// Another thread works until it has looked around.
fn another_looks(registry: &Registry) {
    let (source, budget) = (Objects::new(), Budget::new(0, 0));
    let other = Thread::new(&source, &budget, registry);
    slow_steps(&other, LOOK);
    other.retire().unwrap();
}

/// Frees objects, with another thread at work that keeps pace, or none.
fn free_all<S: ObjectSource>(
    thread: &Thread<'_, S>,
    class: Class,
    objects: impl Iterator<Item = *mut u8>,
    others: bool,
) {
    for (n, object) in objects.enumerate() {
        // A slow step for each batch at most.
        if others && n % (LOOK / 2 * class.batch()) == 0 {
            another_looks(thread.registry);
        }
        thread.free(class, object);
    }
}

/// Makes slow steps, with another thread at work or none.
fn step(thread: &Thread<'_, Objects>, source: &Objects, count: usize, others: bool) {
    let class = class_of_size(262144);
    for n in 0..count {
        if others && n % (LOOK / 2) == 0 {
            another_looks(thread.registry);
        }
        thread.free(class, source.fetch_one(class));
    }
}

/// How often a neighbour lies in another page than the object before or one beside it.
fn jumps(objects: &[*mut u8]) -> usize {
    objects.windows(2).filter(|two| (two[0] as usize).abs_diff(two[1] as usize) > PAGE_SIZE).count()
}

/// Gives a bin all the room that it may have, and empties it, with another thread at work or none. The objects that are out.
fn give_room<S: ObjectSource>(thread: &Thread<'_, S>, class: Class, others: bool) -> Vec<*mut u8> {
    // Refills are what a bin's capacity grows by, and there are as many as it takes to look around.
    let mut room = Vec::new();
    for n in 0..(2 * BIN).max(9 * LOOK * class.batch()) {
        if others && n % (LOOK / 2 * class.batch()) == 0 {
            another_looks(thread.registry);
        }
        room.push(thread.alloc(class));
    }
    while thread.cache.cached(class) > 0 {
        room.push(thread.alloc(class));
    }
    room
}

#[test]
fn a_long_run_of_scattered_frees_goes_home_where_nobody_takes_batches() {
    let (source, registry) = (Objects::new(), Registry::new());
    for class in [16, 64, 256].map(class_of_size) {
        for waits in [0, ENOUGH - 1, ENOUGH, 1000] {
            let budget = plenty();
            let thread = Thread::new(&source, &budget, &registry);
            let room = give_room(&thread, class, true);
            (source.books().waits, source.books().holds) = (waits, MUCH);
            source.forget();
            let all = objects_apart(&source, class, 3 * BIN + 3, PAGE_SIZE);
            assert!(all.len() > 2 * BIN, "{} of {class:?}", all.len());
            free_all(&thread, class, all.iter().copied(), true);
            let books = source.books();
            let (stores, homes) = (books.stores.len(), books.homes.len());
            assert!(stores * class.batch() >= all.len() - BIN, "{class:?}");
            assert!(books.homes.iter().all(|&home| home == (class, class.batch())));
            // A few overflows are no long run.
            let expected = if waits < ENOUGH { 0 } else { stores + 1 - LONG_RUN };
            assert_eq!((homes, books.straight), (expected, 0), "{class:?}, {waits}");
            drop(books);
            room.into_iter().for_each(|object| thread.free(class, object));
            thread.retire().unwrap();
        }
    }
}

#[test]
fn of_one_thread_a_long_run_goes_home_that_does_not_lie_in_order_however_little_is_held() {
    let (source, registry) = (Objects::new(), Registry::new());
    for class in [16, 64, 256, 528, 560].map(class_of_size) {
        for (waits, in_order) in [(0, false), (ENOUGH - 1, true), (ENOUGH, true), (1000, false)] {
            let budget = plenty();
            let thread = Thread::new(&source, &budget, &registry);
            let room = give_room(&thread, class, false);
            (source.books().waits, source.books().holds) = (waits, 0);
            let mut all = objects_apart(&source, class, 2 * BIN + 1, 0);
            if in_order {
                all.sort();
            }
            source.forget();
            all.iter().for_each(|&object| thread.free(class, object));
            let books = source.books();
            let (stores, homes) = (books.stores.len(), books.homes.len());
            assert!(stores * class.batch() >= all.len() - BIN, "{class:?}");
            assert_eq!(books.straight, homes);
            let short = class.batch() == 32;
            if in_order {
                // A list that goes on in another span does not lie side by side.
                assert!(homes < 2 + stores / 4, "{class:?}, {waits}: {homes} of {stores}");
            } else {
                let expected = if short && waits >= ENOUGH { stores + 1 - LONG_RUN } else { 0 };
                assert_eq!(homes, expected, "{class:?}, {waits}");
            }
            drop(books);
            room.into_iter().for_each(|object| thread.free(class, object));
            thread.retire().unwrap();
        }
    }
}

#[test]
fn who_has_met_another_at_work_waits_for_eight_looks_without_one() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let class = class_of_size(64);
    let thread = Thread::new(&source, &budget, &registry);
    let room = give_room(&thread, class, true);
    (source.books().waits, source.books().holds) = (ENOUGH, 0);
    another_looks(&registry);
    let all = objects_apart(&source, class, 24 * LOOK * class.batch(), 0);
    source.forget();
    let first = all.iter().find_map(|&object| {
        thread.free(class, object);
        let books = source.books();
        (!books.homes.is_empty()).then(|| books.stores.len())
    });
    // The first look sees the other one; a slow step sends one batch or two.
    let first = first.expect("in the end");
    assert!((8 * LOOK..2 * 10 * LOOK).contains(&first), "{first}");
    drop((room, all));
}

#[test]
fn what_is_aside_of_one_thread_goes_home_when_a_bin_is_full() {
    let (source, registry) = (Objects::new(), Registry::new());
    let class = class_of_size(64);
    for others in [false, true, false] {
        let budget = plenty();
        let thread = Thread::new(&source, &budget, &registry);
        let room = give_room(&thread, class, others);
        (source.books().waits, source.books().holds) = (ENOUGH, 0);
        let aside = BIN / 2 + 7;
        let lie = objects_apart(&source, class, aside, PAGE_SIZE);
        lie.into_iter().for_each(|object| thread.free(class, object));
        // So that the scavenge puts it aside.
        step(&thread, &source, STEPS + 1, others);
        assert_eq!(thread.cache.cached(class), aside);
        source.forget();
        (aside..=BIN).for_each(|_| thread.free(class, source.fetch_one(class)));
        let homes: Vec<_> = source.books().homes.iter().map(|home| home.1).collect();
        // Of the few in the end nobody says in which order they lie.
        let batches = if others { 0 } else { aside / class.batch() };
        assert_eq!(homes, vec![class.batch(); batches]);
        assert_eq!(thread.cache.cached(class), BIN + 1 - aside);
        room.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
    }
}

#[test]
fn what_fits_the_processors_cache_may_lie_in_any_order() {
    let (source, registry) = (Objects::new(), Registry::new());
    let class = class_of_size(64);
    for less in [1, 0] {
        let budget = plenty();
        let thread = Thread::new(&source, &budget, &registry);
        let room = give_room(&thread, class, true);
        let all = objects_apart(&source, class, 2 * BIN, PAGE_SIZE);
        // As much as the bin may hold counts as well.
        assert_eq!(thread.cache.used(), BIN * 64);
        source.books().waits = ENOUGH;
        source.forget();
        let mut homes = 0;
        for (n, &object) in all.iter().enumerate() {
            if n % (LOOK / 2 * class.batch()) == 0 {
                another_looks(&registry);
            }
            source.books().holds = MUCH - thread.cache.used() - less;
            thread.free(class, object);
            homes = source.books().homes.len();
        }
        assert_eq!(homes > 10, less == 0, "{homes}");
        room.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
    }
}

#[test]
fn who_only_frees_is_not_looked_at() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    (source.books().waits, source.books().holds) = (1000, MUCH);
    for class in [16, 64, 256].map(class_of_size) {
        let thread = Thread::new(&source, &budget, &registry);
        let all = objects_apart(&source, class, 3 * BIN + 1, PAGE_SIZE);
        source.forget();
        all.iter().for_each(|&object| thread.free(class, object));
        let books = source.books();
        assert!(books.stores.len() * class.batch() > BIN);
        assert_eq!(books.homes.len(), 0, "{class:?}");
        drop(books);
        thread.retire().unwrap();
    }
}

#[test]
fn what_lies_in_order_stays_in_batches() {
    let (source, registry) = (Objects::new(), Registry::new());
    (source.books().waits, source.books().holds) = (1000, MUCH);
    for class in [16, 64, 256].map(class_of_size) {
        for backwards in [false, true] {
            let budget = plenty();
            let thread = Thread::new(&source, &budget, &registry);
            let room = give_room(&thread, class, true);
            let mut all: Vec<_> = (0..3 * BIN).map(|_| source.fetch_one(class)).collect();
            all.sort();
            if backwards {
                all.reverse();
            }
            source.forget();
            free_all(&thread, class, all.iter().copied(), true);
            let books = source.books();
            assert!(books.stores.len() >= 2 * BIN / class.batch());
            assert_eq!(books.homes.len(), 0, "{class:?}, {backwards}");
            drop(books);
            room.into_iter().for_each(|object| thread.free(class, object));
            thread.retire().unwrap();
        }
    }
}

#[test]
fn a_refill_begins_another_run() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let (thread, class) = (Thread::new(&source, &budget, &registry), class_of_size(64));
    (source.books().waits, source.books().holds) = (ENOUGH, MUCH);
    let all = objects_apart(&source, class, 6 * BIN + 1, PAGE_SIZE);
    let mut next = all.iter().copied();
    let room = give_room(&thread, class, false);
    source.forget();
    while source.books().stores.is_empty() {
        thread.free(class, next.next().unwrap());
    }
    source.forget();
    for _ in 0..30 {
        // Some overflows, and the bin is empty again.
        let (mut out, batch) = (Vec::new(), class.batch());
        next.by_ref().take(2 * batch).for_each(|object| thread.free(class, object));
        let cached = thread.cache.cached(class);
        out.extend((0..=cached).map(|_| thread.alloc(class)));
        out.into_iter().take(BIN - batch).for_each(|object| thread.free(class, object));
        next.by_ref().take(batch).for_each(|object| thread.free(class, object));
    }
    assert!(source.books().stores.len() >= 2 * LONG_RUN, "{}", source.books().stores.len());
    assert_eq!(source.books().homes.len(), 0);
    room.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
}

#[test]
fn longer_objects_may_lie_in_any_order() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    (source.books().waits, source.books().holds) = (1000, MUCH);
    for class in [560, 976, 1216].map(class_of_size) {
        let thread = Thread::new(&source, &budget, &registry);
        let room = give_room(&thread, class, false);
        source.forget();
        let all = objects_apart(&source, class, 2 * BIN + 1, PAGE_SIZE);
        all.iter().for_each(|&object| thread.free(class, object));
        assert!(source.books().stores.len() > 2 * LONG_RUN, "{class:?}");
        assert_eq!(source.books().homes.len(), 0, "{class:?}");
        room.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
    }
}

#[test]
fn what_lay_idle_in_no_order_goes_home() {
    let (source, registry) = (Objects::new(), Registry::new());
    let cases = [
        (64, true, ENOUGH - 1, false, false),
        (64, true, ENOUGH, false, false),
        (64, true, ENOUGH, true, false),
        (64, true, ENOUGH, false, true),
        (64, false, ENOUGH - 1, false, false),
        (64, false, ENOUGH, false, true),
        (64, false, ENOUGH, true, false),
        (560, false, ENOUGH, false, false),
    ];
    for (size, others, waits, in_order, foreign) in cases {
        let class = class_of_size(size);
        let budget = plenty();
        let thread = Thread::new(&source, &budget, &registry);
        let room = give_room(&thread, class, others);
        (source.books().waits, source.books().holds) = (waits, MUCH);
        let mut all = objects_apart(&source, class, BIN, PAGE_SIZE);
        all.truncate(BIN / 4);
        if in_order {
            all = (0..BIN / 4).map(|_| source.fetch_one(class)).collect();
            all.sort();
        }
        all.iter().for_each(|&object| thread.free(class, object));
        assert_eq!(thread.cache.cached(class), all.len());
        source.forget();
        source.books().foreign = foreign;
        step(&thread, &source, 2 * (STEPS + 1), others);
        assert_eq!(thread.cache.cached(class), 0);
        let whole = all.len() / class.batch();
        let stays = waits < ENOUGH || class.batch() < 32 || in_order || others && foreign;
        let expected = if stays { 0 } else { whole };
        let case = (size, others, waits, in_order, foreign);
        let homes = source.books().homes.len();
        // Where a list goes on in another span, it does not lie side by side.
        let ends = if in_order && !others { 4 } else { 0 };
        assert!((expected..=expected + ends).contains(&homes), "{case:?}: {homes}");
        source.books().foreign = false;
        room.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
    }
}

#[test]
fn whatever_the_order_of_frees_what_comes_next_lies_in_order() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: Central = CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    for alone in [true, false] {
        settles(&CENTRAL, class_of_size(48), 200_000, alone);
        settles(&CENTRAL.near(0), class_of_size(256), 60_000, alone);
    }
}

/// Allocates so many objects and frees them in no order, again and again.
fn settles(source: &impl ObjectSource, class: Class, count: usize, alone: bool) {
    let (budget, registry) = (plenty(), Registry::new());
    let thread = Thread::new(source, &budget, &registry);
    let mut all: Vec<_> = (0..count).map(|_| thread.alloc(class)).collect();
    assert!(jumps(&all) < count / 20, "fresh memory");
    for _ in 0..10 {
        free_all(&thread, class, scattered(count).map(|n| all[n]), !alone);
        all = (0..count).map(|_| thread.alloc(class)).collect();
        // What the bin has room for, and what waited before there was enough, or much, is as it was.
        let kept = if alone { BIN } else { MUCH / class.size() };
        let kept = kept + (ENOUGH + LONG_RUN) * class.batch();
        assert!(jumps(&all) < kept + count / 20, "{} of {count} {class:?}", jumps(&all));
    }
    all.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
}

#[test]
fn what_others_shards_are_home_to_stays_in_batches() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: Central = CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    CENTRAL.widen(2);
    let (class, count) = (class_of_size(48), 100_000);
    let (budget, registry) = (plenty(), Registry::new());
    let (near, far) = (CENTRAL.near(0), CENTRAL.near(1));
    for (source, mixed) in [(far, true), (near, false)] {
        let maker = Thread::new(&near, &budget, &registry);
        let thread = Thread::new(&source, &budget, &registry);
        let room: Vec<_> = give_room(&thread, class, true);
        let all: Vec<_> = (0..count).map(|_| maker.alloc(class)).collect();
        free_all(&thread, class, scattered(count).map(|n| all[n]), true);
        let waits = CENTRAL.stats(class).transfer * class.size();
        // All but what the bins have, or as much as has to wait before order counts.
        assert_eq!(waits > MUCH + 10_000 * 48, mixed, "{waits}");
        room.into_iter().for_each(|object| thread.free(class, object));
        maker.retire().unwrap();
        thread.retire().unwrap();
        CENTRAL.drain(class, usize::MAX).unwrap();
    }
}

/// How many of the batches that wait name the third and the fourth of their objects in the second one.
fn that_name(near: Near<'_, DefaultRawMutex, Heap>, class: Class) -> (usize, usize) {
    let (mut all, mut with_names) = (0, 0);
    while near.waiting(class) > 0 {
        let chain = near.fetch(class, class.batch());
        // SAFETY: the chain owns its objects, which are two words long.
        unsafe {
            let second = Chain::next(chain.head);
            let third = Chain::next(second);
            let word = second.cast::<u64>().add(1).read();
            let distance = |to: *mut u8| ((to as usize).wrapping_sub(second as usize) >> 3) as i32;
            let names = [word as i32 >> 1, (word >> 32) as i32];
            with_names += usize::from(names == [third, Chain::next(third)].map(distance));
            all += 1;
            near.central().store_to_spans(class, chain).unwrap();
        }
    }
    (with_names, all)
}

#[test]
fn batches_of_a_long_run_of_frees_name_their_objects() {
    static MAP: PageMap<Span> = PageMap::new();
    static CENTRAL: Central = CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
    let near = CENTRAL.near(0);
    for (class, names) in [(16, true), (48, true), (528, true), (1024, false)] {
        let class = class_of_size(class);
        let (budget, registry) = (plenty(), Registry::new());
        let thread = Thread::new(&near, &budget, &registry);
        let mut all = give_room(&thread, class, true);
        let rest = all.split_off(2 * BIN);
        free_all(&thread, class, all.iter().copied(), true);
        let (with_names, all) = that_name(near, class);
        assert!(all > 2 * LONG_RUN, "{all}");
        assert_eq!(with_names, if names { all + 1 - LONG_RUN } else { 0 }, "{class:?} {all}");
        rest.into_iter().for_each(|object| thread.free(class, object));
        thread.retire().unwrap();
        CENTRAL.drain(class, usize::MAX).unwrap();
    }
}
