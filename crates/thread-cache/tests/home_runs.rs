//! What a program that frees wrongly leaves in a long run of frees that goes home is reported there.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::{Registry, Thread, class_of_size};
use tiermalloc_central_cache::{CentralCache, Chain, Misuse};
use tiermalloc_page_heap::{OsPages, PageHeap, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::Class;
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::Budget;

type Central = CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>>;

/// Objects that a bin has room for, about.
const BIN: usize = 1024;
/// Batches that wait where nobody takes them.
const ENOUGH: usize = 16;

/// A thread in the middle of a long run of frees that goes home, and objects for it to go on with.
fn in_a_long_run<'a>(
    source: &'a Central,
    budget: &'a Budget,
    registry: &'a Registry,
    class: Class,
) -> (Thread<'a, Central>, Vec<*mut u8>) {
    let thread = Thread::new(source, budget, registry);
    let mut all: Vec<_> = (0..2 * BIN + 8000).map(|_| thread.alloc(class)).collect();
    // Until it has seen eight times that nobody else is at work.
    for _ in 0..6 {
        all.drain(..).for_each(|object| thread.free(class, object));
        all.extend((0..2 * BIN + 8000).map(|_| thread.alloc(class)));
    }
    let mut order: Vec<_> = (0..all.len()).map(|n| all[n * 10_007 % all.len()]).collect();
    let rest = order.split_off(2 * BIN + 1000);
    order.into_iter().for_each(|object| thread.free(class, object));
    assert_eq!(source.near(0).waiting(class), ENOUGH, "all others have gone home");
    (thread, rest)
}

/// Frees until a mistake shows. The mistake, and how many were freed.
fn free_until_it_shows(
    thread: &Thread<'_, Central>,
    class: Class,
    objects: &[*mut u8],
) -> Option<(Misuse, usize)> {
    let mut each = objects.iter().enumerate();
    each.find_map(|(n, &object)| thread.try_free(class, object).err().map(|misuse| (misuse, n)))
}

#[test]
fn what_is_freed_twice_in_a_long_run_that_goes_home_is_reported() {
    let class = class_of_size(64);
    for between in (0..70).chain([100, 1000]) {
        let map = PageMap::new();
        let central: Central = CentralCache::new(PageHeap::new(leak(map), OsPages::new()));
        let (budget, registry) = (small(), Registry::new());
        let (thread, rest) = in_a_long_run(&central, &budget, &registry, class);
        let (first, rest) = rest.split_at(between + 1);
        let before = free_until_it_shows(&thread, class, first);
        assert_eq!(before, None);
        let twice = first[0];
        let shown = match thread.try_free(class, twice) {
            Err(misuse) => Some((misuse, 0)),
            Ok(()) => free_until_it_shows(&thread, class, rest),
        };
        let (misuse, after) = shown.expect("reported");
        assert_eq!(misuse, Misuse::DoubleFree(twice, class), "{between}");
        // Up to an overflow, and while the bin shrinks to it.
        assert!(after <= 70 + 3 * between, "{between}: {after}");
    }
}

#[test]
fn a_link_that_a_program_has_cleared_is_reported_wherever_it_lies() {
    let class = class_of_size(64);
    let mut all_listed = 0;
    for depth in 0..100 {
        let central: Central =
            CentralCache::new(PageHeap::new(leak(PageMap::new()), OsPages::new()));
        let (budget, registry) = (small(), Registry::new());
        let (thread, rest) = in_a_long_run(&central, &budget, &registry, class);
        let (first, rest) = rest.split_at(depth + 1);
        assert_eq!(free_until_it_shows(&thread, class, first), None);
        // Unless it is at home, where nobody reads it.
        let listed = central.check_live(class, first[0]).is_ok();
        // SAFETY: the misuse is the point.
        unsafe { Chain::link(first[0], std::ptr::null_mut()) };
        let shown = free_until_it_shows(&thread, class, rest);
        let reported = matches!(shown, Some((Misuse::DoubleFree(..), _)));
        assert_eq!(reported, listed, "{depth}: {shown:?}");
        all_listed += usize::from(listed);
    }
    assert!(all_listed > 20, "{all_listed}");
}

#[test]
fn a_link_of_what_lies_idle_that_a_program_has_cleared_is_reported() {
    let (class, steps) = (class_of_size(64), class_of_size(262144));
    for listed in [1, 8, 16, 25, 30] {
        for taken in [0, 1] {
            let central = Central::new(PageHeap::new(leak(PageMap::new()), OsPages::new()));
            let (budget, registry) = (small(), Registry::new());
            let (thread, rest) = in_a_long_run(&central, &budget, &registry, class);
            let mut rest = rest.into_iter();
            // Nobody goes to the bin from here on but the scavenge.
            while thread.cache.cached(class) < listed + 1 {
                thread.free(class, rest.next().unwrap());
            }
            let cleared = rest.next().unwrap();
            thread.free(class, cleared);
            // SAFETY: the misuse is the point.
            unsafe { Chain::link(cleared, std::ptr::null_mut()) };
            // With it the list is gone, and the numbers are not.
            (0..taken).for_each(|_| assert_eq!(thread.alloc(class), cleared));
            let idle = || {
                let object = thread.try_alloc(steps)?;
                thread.try_free(steps, object)
            };
            let shown = (0..2 * 4097 + 2).find_map(|_| idle().err());
            assert!(matches!(shown, Some(Misuse::DoubleFree(..))), "{listed} {taken}: {shown:?}");
        }
    }
}

#[test]
fn a_cache_that_is_handed_on_is_not_alone_before_it_has_looked() {
    let class = class_of_size(64);
    let central = Central::new(PageHeap::new(leak(PageMap::new()), OsPages::new()));
    let (budget, registry) = (small(), Registry::new());
    let (thread, rest) = in_a_long_run(&central, &budget, &registry, class);
    thread.cache.hand_to(1);
    rest.iter().take(2000).for_each(|&object| thread.free(class, object));
    assert!(central.near(0).waiting(class) > ENOUGH, "in batches again");
}

#[test]
fn what_is_no_object_in_a_long_run_that_goes_home_is_reported() {
    let (class, other) = (class_of_size(64), class_of_size(128));
    for foreign in [false, true] {
        let central: Central =
            CentralCache::new(PageHeap::new(leak(PageMap::new()), OsPages::new()));
        let (budget, registry) = (small(), Registry::new());
        let (thread, rest) = in_a_long_run(&central, &budget, &registry, class);
        let wrong = if foreign { thread.alloc(other) } else { rest[0].wrapping_add(32) };
        let shown = match thread.try_free(class, wrong) {
            Err(misuse) => Some((misuse, 0)),
            Ok(()) => free_until_it_shows(&thread, class, &rest[1..]),
        };
        let expected = match foreign {
            true => Misuse::Foreign(wrong, class),
            false => Misuse::NotAnObject(wrong, class),
        };
        assert!(matches!(shown, Some((misuse, ..100)) if misuse == expected), "{shown:?}");
    }
}

fn leak(map: PageMap<Span>) -> &'static PageMap<Span> {
    Box::leak(Box::new(map))
}

/// As much as [`BIN`] objects need: each test has many heaps.
fn small() -> Budget {
    Budget::new(BIN * 64, BIN * 64)
}
