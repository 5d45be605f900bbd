//! How much a thread may keep, and how threads share that out: budget, registry, limits.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::BTreeSet;
use std::ptr::{self, NonNull};

use support::{MIB, Objects, Registry, STEPS, Thread, class_of_size, classes, plenty, slow_steps};
use tiermalloc_size_class::{CLASSES, Class};
use tiermalloc_thread_cache::{Budget, Orphans, ThreadCache};

#[test]
fn a_thread_without_any_budget_works_object_by_object() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(0, MIB);
    let thread = Thread::new(&source, &budget, &registry);
    for class in classes() {
        let (one, two) = (thread.alloc(class), thread.alloc(class));
        assert!(!one.is_null() && !two.is_null() && one != two);
        assert_eq!((thread.cached().0, thread.cache.used(), thread.cache.limit()), (0, 0, 0));
        thread.free(class, one);
        thread.free(class, two);
        assert_eq!(source.out(), 0, "{class:?}: straight to the source");
    }
    assert!(source.books().fetches.iter().all(|&(_, wanted, got)| (wanted, got) == (1, 1)));
    assert!(source.books().stores.iter().all(|&(_, count)| count == 1));
}

#[test]
fn a_thread_never_claims_more_than_its_share() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(64 * MIB, 300_000);
    let thread = Thread::new(&source, &budget, &registry);
    let mut kept = Vec::new();
    for round in 0..40 {
        for class in classes() {
            kept.extend((0..round % 7).map(|_| (class, thread.alloc(class))));
            thread.check_bounds();
        }
        for (class, object) in kept.drain(kept.len() / 3..) {
            thread.free(class, object);
            thread.check_bounds();
        }
    }
    assert!(thread.cache.limit() > 200_000, "the share is used: {}", thread.cache.limit());
    kept.into_iter().for_each(|(class, object)| thread.free(class, object));
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn room_that_other_bins_do_not_use_is_taken_when_the_limit_is_reached() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(64 * 1024, 64 * 1024);
    let thread = Thread::new(&source, &budget, &registry);
    let (first, second) = (class_of_size(1024), class_of_size(1040 + 48));
    [first, second].into_iter().for_each(|class| thread.earn(class));
    // The first bin takes all of the limit as room, and holds nothing.
    let kept: Vec<_> = (0..95).map(|_| thread.alloc(first)).collect();
    assert_eq!(thread.cache.cached(first), 0);
    assert_eq!(thread.cache.limit(), 64 * 1024);
    assert_eq!(thread.cache.used(), 64 * 1024);
    for _ in 0..8 {
        let all: Vec<_> = (0..40).map(|_| thread.alloc(second)).collect();
        all.into_iter().for_each(|object| thread.free(second, object));
        thread.check_bounds();
    }
    assert!(thread.cache.cached(second) > 20, "{}", thread.cache.cached(second));
    thread.check_bounds();
    kept.into_iter().for_each(|object| thread.free(first, object));
    thread.check_bounds();
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * 1024));
}

#[test]
fn a_thread_that_needs_room_gets_it_from_another_at_the_others_next_slow_step() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(256 * 1024, 256 * 1024);
    let rich = Thread::new(&source, &budget, &registry);
    let poor = Thread::new(&source, &budget, &registry);
    for thread in [&rich, &poor] {
        // SAFETY: the caches stay until they are removed below.
        unsafe { registry.add(NonNull::from(&*thread.cache)) };
    }
    let (class, other) = (class_of_size(4096), class_of_size(64));
    let all: Vec<_> = (0..100).map(|_| rich.alloc(class)).collect();
    all.into_iter().for_each(|object| rich.free(class, object));
    assert_eq!((rich.cache.limit(), budget.unclaimed()), (256 * 1024, 0));

    poor.free(other, poor.alloc(other));
    assert_eq!(poor.cache.limit(), 0, "there is nothing yet");
    // A slow step of the rich one.
    rich.free(other, rich.alloc(other));
    assert!(budget.unclaimed() >= 16 * 1024, "{}", budget.unclaimed());
    rich.check_bounds();
    poor.free(other, poor.alloc(other));
    assert!(poor.cache.limit() > 0);
    assert!(poor.cache.limit() + rich.cache.limit() + budget.unclaimed() == 256 * 1024);
    for thread in [&rich, &poor] {
        thread.retire().unwrap();
        // SAFETY: added above.
        unsafe { registry.remove(NonNull::from(&*thread.cache)) };
    }
    assert_eq!((source.out(), budget.unclaimed(), registry.count()), (0, 256 * 1024, 0));
}

#[test]
fn what_is_asked_back_is_given_back_at_the_next_slow_step_even_out_of_full_bins() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(1024);
    let all: Vec<_> = (0..300).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    let (limit, cached) = (thread.cache.limit(), thread.cache.cached(class));
    assert!(cached > 200);
    thread.cache.ask_back(limit - 8 * 1024);
    assert_eq!(thread.cache.limit(), limit, "only the owner gives");
    let other = class_of_size(16);
    let object = thread.alloc(other);
    assert!(thread.cache.limit() <= 8 * 1024 + 16 * 1024, "and may claim one piece anew");
    thread.check_bounds();
    // More than it has is all that it has.
    thread.cache.ask_back(usize::MAX);
    thread.free(other, object);
    thread.flush_all();
    thread.check_bounds();
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn a_budget_grants_what_is_there_within_the_share_of_a_thread() {
    let budget = Budget::new(1000, 600);
    assert_eq!(budget.claim(500, 0), 500);
    assert_eq!(budget.claim(500, 500), 100, "at most its share");
    assert_eq!(budget.claim(500, 600), 0);
    assert_eq!(budget.claim(500, 700), 0);
    assert_eq!(budget.claim(500, 0), 400, "at most what is left");
    assert_eq!((budget.claim(1, 0), budget.unclaimed()), (0, 0));
    budget.give_back(1000);
    assert_eq!((budget.unclaimed(), budget.per_thread()), (1000, 600));
}

#[test]
fn a_shared_budget_leaves_something_for_those_who_come_later() {
    let budget = Budget::shared(1600, 90, 7);
    assert_eq!(budget.floor(), 7);
    assert_eq!(budget.claim(1000, 0), 90, "a thread's share");
    let mut last = 90;
    for thread in 0..30 {
        let part = budget.unclaimed() / 8;
        let got = budget.claim(1000, 0);
        assert_eq!(got, part.min(90), "an 8th of what is left");
        assert!(got <= last && got > 0, "thread {thread} gets {got}");
        assert_eq!(budget.claim(1000, got), 0, "and not another one");
        last = got;
    }
    let total = 1600 - budget.unclaimed();
    budget.give_back(total);
    assert_eq!(budget.claim(1000, 0), 90);
}

#[test]
fn a_thread_always_has_its_floor() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::shared(0, MIB, 10_000);
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(1024);
    thread.earn(class);
    let all: Vec<_> = (0..30).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    assert!(thread.cache.cached(class) > 4, "{}", thread.cache.cached(class));
    // Nobody can take it away.
    thread.cache.ask_back(usize::MAX / 2);
    thread.free(class, thread.alloc(class));
    slow_steps(&thread, 3 * STEPS);
    assert_eq!(thread.cache.limit(), 10_000);
    thread.check_bounds();
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed(), thread.cache.limit()), (0, 0, 0));
}

#[test]
fn a_scavenge_gives_back_what_of_the_limit_no_bin_has_use_for() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let (class, small) = (class_of_size(1024), class_of_size(16));
    let all: Vec<_> = (0..500).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    assert!(thread.cache.limit() > 400 * 1024);
    for _ in 0..STEPS {
        thread.flush_all();
        thread.free(small, thread.alloc(small));
    }
    assert!(thread.cache.limit() <= 16 * 1024, "one claim at most: {}", thread.cache.limit());
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn the_registry_knows_every_cache_and_asks_them_in_turn() {
    let registry = Registry::new();
    let caches: Vec<Box<ThreadCache>> = (0..4).map(|_| Box::new(ThreadCache::new())).collect();
    let pointers: Vec<NonNull<ThreadCache>> =
        caches.iter().map(|cache| NonNull::from(&**cache)).collect();
    // SAFETY: the caches outlive their time in the registry.
    pointers.iter().for_each(|&cache| unsafe { registry.add(cache) });
    let known = |registry: &Registry| {
        let mut known = BTreeSet::new();
        registry.for_each(|cache| assert!(known.insert(ptr::from_ref(cache).cast_mut())));
        assert_eq!(known.len(), registry.count());
        known
    };
    assert_eq!(known(&registry), pointers.iter().map(|cache| cache.as_ptr()).collect());
    // Out of the middle, the first, the last; and in again.
    for index in [1, 3, 0] {
        // SAFETY: as above.
        unsafe {
            assert_eq!(registry.remove(pointers[index]), 3);
            assert!(!known(&registry).contains(&pointers[index].as_ptr()));
            registry.add(pointers[index]);
        }
        assert_eq!(registry.count(), 4);
    }
    // Each cache but the one that asks is asked equally often, also when one leaves in between.
    let source = Objects::new();
    let budget = Budget::new(4 * MIB, MIB);
    let threads: Vec<_> = caches
        .into_iter()
        .map(|cache| Thread { cache, source: &source, budget: &budget, registry: &registry })
        .collect();
    let class = class_of_size(8192);
    for thread in &threads {
        let all: Vec<_> = (0..64).map(|_| thread.alloc(class)).collect();
        all.into_iter().for_each(|object| thread.free(class, object));
    }
    let before: Vec<usize> = threads.iter().map(|thread| thread.cache.limit()).collect();
    for _ in 0..6 {
        registry.ask_another(&threads[0].cache, 8192);
    }
    let other = class_of_size(16);
    for (thread, before) in threads.iter().zip(&before) {
        thread.free(other, thread.alloc(other));
        let asked = if ptr::eq(&*thread.cache, &*threads[0].cache) { 0 } else { 2 };
        let given = before - thread.cache.limit().min(*before);
        assert!(given <= asked * 8192, "asked {asked} times, gave {given}");
    }
    registry.lock_for_fork();
    // SAFETY: locked right above, by this thread.
    unsafe { registry.unlock_after_fork() };
    // The child of a fork: one cache stays, the others are handed out one after the other.
    // SAFETY: nobody else uses the caches.
    unsafe {
        let list = Orphans::new();
        assert!(list.is_empty() && list.take().is_none());
        list.add(registry.take_all_but(Some(pointers[2])).unwrap());
        assert!(!list.is_empty());
        let mut orphans = BTreeSet::new();
        while let Some(cache) = list.take() {
            assert!(orphans.insert(cache.as_ptr()));
        }
        assert_eq!(orphans.len(), 3);
        assert!(!orphans.contains(&pointers[2].as_ptr()));
        assert_eq!(known(&registry), BTreeSet::from([pointers[2].as_ptr()]));
        assert_eq!(registry.remove(pointers[2]), 0);
        assert_eq!(registry.take_all_but(None), None);
    }
    threads.iter().for_each(|thread| thread.retire().unwrap());
    assert_eq!((source.out(), budget.unclaimed()), (0, 4 * MIB));
}

#[test]
fn a_cache_that_leaves_when_it_was_next_is_not_asked() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    // The newest comes first, and is the one that asks.
    let [leaving, _middle, asking]: [Thread<'_, Objects>; 3] = std::array::from_fn(|_| {
        let thread = Thread::new(&source, &budget, &registry);
        // SAFETY: the caches stay for the length of the test.
        unsafe { registry.add(NonNull::from(&*thread.cache)) };
        thread
    });
    let class = class_of_size(1024);
    let all: Vec<_> = (0..100).map(|_| leaving.alloc(class)).collect();
    all.into_iter().for_each(|object| leaving.free(class, object));
    let limit = leaving.cache.limit();
    assert!(limit > 64 * 1024);
    registry.ask_another(&asking.cache, MIB);
    // SAFETY: added above.
    unsafe { registry.remove(NonNull::from(&*leaving.cache)) };
    registry.ask_another(&asking.cache, MIB);
    leaving.alloc(class_of_size(128));
    assert!(leaving.cache.limit() >= limit, "it was asked to give it back");
}

#[test]
fn a_request_is_met_once() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(1024);
    let all: Vec<_> = (0..100).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    thread.flush_all();
    let limit = thread.cache.limit();
    thread.cache.ask_back(1000);
    thread.cache.ask_back(9000);
    for class in [16, 32, 48, 64].map(class_of_size) {
        thread.alloc(class);
        assert_eq!(thread.cache.limit(), limit - 10_000);
    }
}

#[test]
fn a_registry_of_one_has_nobody_else_to_ask() {
    let registry = Registry::new();
    let cache = ThreadCache::new();
    registry.ask_another(&cache, 1);
    // SAFETY: removed below.
    unsafe { registry.add(NonNull::from(&cache)) };
    registry.ask_another(&cache, 1);
    // SAFETY: added above.
    assert_eq!(unsafe { registry.remove(NonNull::from(&cache)) }, 0);
}

#[test]
fn threads_share_one_budget_and_never_exceed_it_together() {
    let source = Objects::new();
    let registry = Registry::new();
    let budget = Budget::new(512 * 1024, 256 * 1024);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let (source, budget, registry) = (&source, &budget, &registry);
            scope.spawn(move || {
                let thread = Thread::new(source, budget, registry);
                // SAFETY: removed below.
                unsafe { registry.add(NonNull::from(&*thread.cache)) };
                let mut random = seed * 7919 + 1;
                let mut held: Vec<(Class, *mut u8)> = Vec::new();
                for _ in 0..20_000 {
                    random =
                        random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let pick = (random >> 33) as usize;
                    if pick % 2 == 0 || held.is_empty() {
                        let class = Class::from_id(pick / 2 % CLASSES + 1).unwrap();
                        held.push((class, thread.alloc(class)));
                    } else {
                        let (class, object) = held.swap_remove(pick / 2 % held.len());
                        thread.free(class, object);
                    }
                    thread.check_bounds();
                    assert!(budget.unclaimed() <= 512 * 1024);
                }
                held.into_iter().for_each(|(class, object)| thread.free(class, object));
                thread.retire().unwrap();
                // SAFETY: added above.
                unsafe { registry.remove(NonNull::from(&*thread.cache)) };
            });
        }
    });
    assert_eq!((source.out(), budget.unclaimed(), registry.count()), (0, 512 * 1024, 0));
}

#[test]
fn a_configured_budget_has_floors_out_of_its_total() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::shared(0, 0, 0);
    budget.configure(64 * 1024, 32 * 1024, 8 * 1024);
    assert_eq!((budget.floor(), budget.per_thread()), (8 * 1024, 24 * 1024));
    // A quarter of it is enough for two floors.
    let threads: Vec<_> = (0..4).map(|_| Thread::new(&source, &budget, &registry)).collect();
    let floors: Vec<_> = threads.iter().map(|thread| thread.cache.limit()).collect();
    assert_eq!(floors, [8 * 1024, 8 * 1024, 0, 0]);
    let class = class_of_size(512);
    for thread in &threads {
        let all: Vec<_> = (0..500).map(|_| thread.alloc(class)).collect();
        all.into_iter().for_each(|object| thread.free(class, object));
        assert!(thread.cache.limit() <= 32 * 1024);
    }
    let all: usize = threads.iter().map(|thread| thread.cache.limit()).sum();
    assert!(all <= 64 * 1024 && all > 20 * 1024, "{all}");
    threads.iter().for_each(|thread| thread.retire().unwrap());
    assert_eq!((source.out(), budget.unclaimed()), (0, 48 * 1024));
    // The floors are there for the next.
    let next = Thread::new(&source, &budget, &registry);
    assert_eq!(next.cache.limit(), 8 * 1024);
    next.retire().unwrap();
}

#[test]
fn a_budget_of_nothing_and_one_smaller_than_a_floor_work() {
    let (source, registry) = (Objects::new(), Registry::new());
    for (total, per_thread) in [(0, 0), (0, 4096), (4096, 0), (4096, 4096), (100, 50)] {
        let budget = Budget::shared(0, 0, 0);
        budget.configure(total, per_thread, 16 * 1024);
        let thread = Thread::new(&source, &budget, &registry);
        for class in classes() {
            let all: Vec<_> = (0..5).map(|_| thread.alloc(class)).collect();
            all.into_iter().for_each(|object| thread.free(class, object));
            assert!(thread.cache.limit() <= per_thread.min(total));
            assert!(thread.cached().1 <= thread.cache.limit());
        }
        thread.retire().unwrap();
        assert_eq!((source.out(), budget.unclaimed()), (0, total - total / 4));
    }
}

#[test]
fn what_others_hold_is_not_claimed() {
    let budget = Budget::new(1000, 1000);
    assert_eq!(budget.claim_beside(700, usize::MAX, 500, 0), 300);
    assert_eq!(budget.claim_beside(700, usize::MAX, 500, 300), 0);
    assert_eq!(budget.claim_beside(2000, usize::MAX, 500, 300), 0);
    assert_eq!(budget.claim_beside(0, 400, 500, 300), 100);
}

#[test]
fn all_that_was_claimed_goes_back_when_everybody_is_asked() {
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::shared(MIB, MIB, 4096);
    let thread = Thread::new(&source, &budget, &registry);
    // SAFETY: the cache stays until it is removed below.
    unsafe { registry.add(NonNull::from(&*thread.cache)) };
    let class = class_of_size(512);
    let all: Vec<_> = (0..100).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    assert!(thread.cache.limit() > 8 * 1024);
    registry.ask_all();
    registry.ask_all();
    // A slow step that claims nothing.
    thread.free(class_of_size(16), source.fetch_one(class_of_size(16)));
    assert_eq!((thread.cache.limit(), budget.unclaimed()), (4096, MIB));
    thread.check_bounds();
    thread.retire().unwrap();
    // SAFETY: added above.
    unsafe { registry.remove(NonNull::from(&*thread.cache)) };
}

#[test]
fn what_a_thread_does_at_its_source_is_counted_and_seen_by_others() {
    use tiermalloc_sync::Patience;
    let (source, registry) = (Objects::new(), Registry::new());
    let budget = Budget::new(MIB, MIB);
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(512);
    thread.cache.hand_to(77);
    let all: Vec<_> = (0..300).map(|_| thread.alloc(class)).collect();
    let fetches = source.books().fetches.len() as u64;
    assert_eq!(thread.cache.activity(), (77, fetches, 0));
    all.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
    let stores = source.books().stores.len() as u64;
    assert!(stores > 0);
    assert_eq!(thread.cache.activity(), (77, fetches, stores));
    assert_eq!(thread.cache.bounds(), (thread.cache.limit(), thread.cache.used()));
    thread.cache.hand_to(78);
    assert_eq!(thread.cache.activity(), (78, 0, 0));

    let mut seen = 0;
    assert!(registry.for_each_within(&mut Patience::ms(0), |_| seen += 1));
    assert_eq!((seen, registry.waits()), (registry.count(), 0));
    registry.lock_for_fork();
    assert!(!registry.for_each_within(&mut Patience::ms(1), |_| unreachable!()));
    // SAFETY: taken above.
    unsafe { registry.unlock_after_fork() };
}
