//! How much of the budget one thread may claim, and what a bin may take from others.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;

use support::{MIB, Objects, Registry, Thread, class_of_size, plenty};
use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::{Budget, Chain, Misuse, ObjectSource};

#[test]
fn a_thread_claims_a_quarter_of_what_stands_behind_the_source_or_4_mib() {
    let registry = Registry::new();
    for (reserved, share) in [
        (0, 4 * MIB),
        (16 * MIB, 4 * MIB),
        (16 * MIB + 400_000, 4 * MIB + 100_000),
        (24 * MIB, 6 * MIB),
        (usize::MAX, 16 * MIB),
    ] {
        for floor in [0, 10_000] {
            let (source, budget) = (Objects::new(), Budget::shared(1 << 30, 16 * MIB, floor));
            source.books().reserved = reserved;
            let thread = Thread::new(&source, &budget, &registry);
            let class = class_of_size(1024);
            let all: Vec<_> = (0..20 * MIB / 1024).map(|_| thread.alloc(class)).collect();
            // One bin has its bound, too: the other half of the 16 MiB goes to others.
            let other = class_of_size(8192);
            let more: Vec<_> = (0..20 * MIB / 8192).map(|_| thread.alloc(other)).collect();
            assert_eq!(thread.cache.limit(), floor + share, "of {reserved}");
            all.into_iter().for_each(|object| thread.free(class, object));
            more.into_iter().for_each(|object| thread.free(other, object));
            thread.check_bounds();
            assert!(thread.cache.limit() <= floor + share, "of {reserved}");
            thread.retire().unwrap();
            assert_eq!((source.out(), budget.unclaimed()), (0, 1 << 30));
        }
    }
}

/// A source that does what it must, and says nothing.
struct Silent(Objects);

// SAFETY: the objects' word, which this passes on.
unsafe impl ObjectSource for Silent {
    fn fetch(&self, class: Class, wanted: usize) -> Chain {
        self.0.fetch(class, wanted)
    }
    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.0.store(class, chain) }
    }
}

#[test]
fn a_source_that_says_nothing_sets_no_share() {
    let (source, budget, registry) = (Silent(Objects::new()), plenty(), Registry::new());
    source.0.books().reserved = 0;
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(4096);
    let all: Vec<_> = (0..3 * MIB / 4096).map(|_| thread.alloc(class)).collect();
    all.into_iter().for_each(|object| thread.free(class, object));
    assert!(thread.cache.limit() > MIB, "{}", thread.cache.limit());
    thread.retire().unwrap();
    assert_eq!((source.0.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn a_share_grows_with_what_stands_behind_the_source() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let class = class_of_size(4096);
    let mut kept = Vec::new();
    for mib in [1, 9, 16, 40] {
        source.books().reserved = mib * MIB;
        kept.extend((0..6 * MIB / 4096).map(|_| thread.alloc(class)));
        assert_eq!(thread.cache.limit(), (mib * MIB / 4).max(4 * MIB));
    }
    kept.into_iter().for_each(|object| thread.free(class, object));
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn nobody_is_asked_who_has_hardly_more() {
    let (source, registry) = (Objects::new(), Registry::new());
    let (class, unit) = (class_of_size(2048), 16 * 1024);
    for (shares, is_asked) in [(9, false), (11, false), (12, true), (14, true)] {
        let budget = Budget::new(21 * unit, 21 * unit);
        let thread = Thread::new(&source, &budget, &registry);
        let neighbour = Thread::new(&source, &budget, &registry);
        for thread in [&thread, &neighbour] {
            // SAFETY: the caches stay until they are removed below.
            unsafe { registry.add(NonNull::from(&*thread.cache)) };
            thread.earn(class);
        }
        let its: Vec<_> =
            (0..shares * unit / class.size()).map(|_| neighbour.alloc(class)).collect();
        its.into_iter().for_each(|object| neighbour.free(class, object));
        let its = neighbour.cache.limit();
        assert_eq!(its, shares * unit);
        let mut mine: Vec<_> = (0..(21 - shares) * unit / class.size())
            .map(|_| (class, thread.alloc(class)))
            .collect();
        assert_eq!(budget.unclaimed(), 0);
        // A bin of another class has no room at all, and there is nothing left to claim.
        let (small, slow) = (class_of_size(16), class_of_size(32));
        (0..200).for_each(|_| mine.push((slow, thread.alloc(slow))));
        neighbour.free(small, source.fetch_one(small));
        assert_eq!(neighbour.cache.limit() < its, is_asked, "{shares} and {}", 21 - shares);
        mine.into_iter().for_each(|(class, object)| thread.free(class, object));
        for thread in [&thread, &neighbour] {
            thread.retire().unwrap();
            // SAFETY: added above.
            unsafe { registry.remove(NonNull::from(&*thread.cache)) };
        }
    }
}

#[test]
fn a_bin_with_room_for_two_batches_takes_none_from_others() {
    let (source, registry) = (Objects::new(), Registry::new());
    let (class, other) = (class_of_size(1024), class_of_size(2048));
    let (batch, unit) = (class.batch(), 16 * 1024);
    // The other bin has taken all of the limit as room, but for what so many batches of the first need, and
    // holds nothing.
    for batches in 1..5 {
        let budget = Budget::new(20 * unit, 20 * unit);
        let thread = Thread::new(&source, &budget, &registry);
        let neighbour = Thread::new(&source, &budget, &registry);
        for thread in [&thread, &neighbour] {
            // SAFETY: the caches stay until they are removed below.
            unsafe { registry.add(NonNull::from(&*thread.cache)) };
            [class, other].into_iter().for_each(|class| thread.earn(class));
        }
        // More than the other one will have, so that it can be asked for some.
        let its: Vec<_> = (0..12 * unit / other.size()).map(|_| neighbour.alloc(other)).collect();
        its.into_iter().for_each(|object| neighbour.free(other, object));
        let its = neighbour.cache.limit();
        assert!(its >= 12 * unit);
        let mut mine: Vec<_> = (0..batches * batch).map(|_| (class, thread.alloc(class))).collect();
        let room =
            |thread: &Thread<'_, Objects>, theirs| thread.cache.used() - theirs * other.size();
        assert_eq!(room(&thread, 0), batches * unit);
        while budget.unclaimed() > 0 {
            mine.push((other, thread.alloc(other)));
        }
        let theirs = (thread.cache.used() - batches * unit) / other.size();
        for _ in 0..4 * batch {
            mine.push((class, thread.alloc(class)));
            thread.check_bounds();
        }
        let now = room(&thread, theirs);
        if batches < 2 {
            assert!(now >= batches * unit, "it took some: {now}");
            assert_eq!(thread.cache.used(), thread.cache.limit());
        } else {
            assert_eq!(now, batches * unit, "as much as it had");
        }
        // Nor is anybody asked, who would give at its next slow step: one that wants nothing.
        neighbour.free(class_of_size(16), source.fetch_one(class_of_size(16)));
        let asked = neighbour.cache.limit() < its;
        assert_eq!(asked, batches < 2, "{batches}");
        mine.into_iter().for_each(|(class, object)| thread.free(class, object));
        for thread in [&thread, &neighbour] {
            thread.retire().unwrap();
            // SAFETY: added above.
            unsafe { registry.remove(NonNull::from(&*thread.cache)) };
        }
        assert_eq!(budget.unclaimed(), 20 * unit);
    }
}
