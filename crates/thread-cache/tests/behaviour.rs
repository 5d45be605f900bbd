//! What the thread cache promises, one promise a test.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use support::{CutOff, Fault, Objects, Registry, STEPS, Thread, class_of_size, classes};
use tiermalloc_size_class::{CLASSES, Class, SLOTS};
use tiermalloc_thread_cache::{Budget, Misuse, ThreadCache};

const MIB: usize = 1 << 20;

/// A budget that no test of a single bin runs into.
fn plenty() -> Budget {
    Budget::new(64 * MIB, 16 * MIB)
}

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
fn the_first_refill_fetches_one_object_and_each_further_one_twice_as_many_up_to_a_batch() {
    let (budget, registry) = (plenty(), Registry::new());
    for class in classes() {
        let source = Objects::new();
        let thread = Thread::new(&source, &budget, &registry);
        let mut kept = Vec::new();
        while source.books().fetches.len() < 9 {
            kept.push(thread.alloc(class));
            thread.check_bounds();
        }
        let wanted: Vec<usize> = source.books().fetches.iter().map(|fetch| fetch.1).collect();
        let doubling = (0..9).map(|refill| (1 << refill).min(class.batch()));
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
        source.forget();
        for object in all {
            freer.free(class, object);
            freer.check_bounds();
            assert!(freer.cache.cached(class) <= batch, "{class:?}");
        }
        let books = source.books();
        assert_eq!(books.stores, vec![(class, batch); 9], "{class:?}");
    }
    maker.retire().unwrap();
    freer.retire().unwrap();
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
    for _ in 0..100 * batch {
        thread.free(class, maker.alloc(class));
    }
    assert!(thread.cache.used() / 64 < 2 * batch, "{}", thread.cache.used() / 64);
    thread.check_bounds();
    thread.retire().unwrap();
    maker.retire().unwrap();
    assert_eq!(source.out(), 0);
}

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

/// Makes `count` slow steps that leave nothing behind: of a class that the budget has no room for.
fn slow_steps<S: tiermalloc_thread_cache::ObjectSource>(thread: &Thread<'_, S>, count: usize) {
    let class = class_of_size(256 * 1024);
    let object = thread.alloc(class);
    for step in 1..count {
        assert_eq!(thread.cache.cached(class), 0);
        if step % 2 == 1 {
            thread.free(class, object)
        } else {
            assert_eq!(thread.alloc(class), object)
        }
    }
    if count % 2 == 1 {
        thread.free(class, object);
    }
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
    assert!(thread.cached().0 > 150);
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
    assert!(thread.cached().0 > CLASSES);
    thread.retire().unwrap();
    assert_eq!((thread.cached(), thread.cache.used(), thread.cache.limit()), ((0, 0), 0, 0));
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

/// A scavenge in the middle, so that some objects are aside.
fn slow_steps_by_growth<S: tiermalloc_thread_cache::ObjectSource>(thread: &Thread<'_, S>) {
    let class = class_of_size(16);
    let all: Vec<_> = (0..40 * STEPS).map(|_| thread.alloc(class)).collect();
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

/// Allocates and frees in a fixed order; null answers are taken as they come.
fn script(thread: &Thread<'_, Objects>, held: &mut Vec<(Class, *mut u8)>) {
    let sizes = [16, 64, 1024, 28672, 262144].map(class_of_size);
    for round in 0..6 {
        for class in sizes {
            for _ in 0..class.batch() + round {
                let object = thread.alloc(class);
                if !object.is_null() {
                    held.push((class, object));
                }
                thread.check_bounds();
            }
        }
        for _ in 0..held.len() * 3 / 4 {
            // Out of the list before it is given up: whoever is cut off in between has lost it.
            let (class, object) = held.swap_remove((held.len() * 7 / 11).min(held.len() - 1));
            thread.free(class, object);
            thread.check_bounds();
        }
    }
}

#[test]
fn a_source_that_refuses_at_the_nth_call_costs_nothing_but_the_answer() {
    for count in [1, usize::MAX] {
        let (mut n, mut calls) = (1, usize::MAX);
        while n <= calls {
            let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
            let thread = Thread::new(&source, &budget, &registry);
            let mut held = Vec::new();
            source.fault(Some(Fault::Refuse { n, count }));
            script(&thread, &mut held);
            calls = source.calls();
            source.fault(None);
            assert_eq!(source.out(), held.len() + thread.cached().0, "{n} {count}");
            script(&thread, &mut held);
            held.into_iter().for_each(|(class, object)| thread.free(class, object));
            thread.retire().unwrap();
            assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB), "{n} {count}");
            n += 1;
        }
        assert!(n > 30, "the script asks often: {n}");
    }
}

#[test]
fn a_source_that_gives_less_than_is_wanted_is_enough() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    source.be_stingy(true);
    let thread = Thread::new(&source, &budget, &registry);
    let mut held = Vec::new();
    script(&thread, &mut held);
    assert_eq!(source.out(), held.len() + thread.cached().0);
    held.into_iter().for_each(|(class, object)| thread.free(class, object));
    thread.retire().unwrap();
    assert_eq!((source.out(), budget.unclaimed()), (0, 64 * MIB));
}

#[test]
fn a_cache_that_is_cut_off_at_any_call_of_its_source_is_salvaged() {
    // The panics that cut threads off are part of the test.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<CutOff>() {
            hook(panic);
        }
    }));
    for after in [false, true] {
        let (mut n, mut cut) = (1, true);
        while cut {
            let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
            let thread = Thread::new(&source, &budget, &registry);
            let mut held = Vec::new();
            source.fault(Some(Fault::Cut { n, after }));
            cut = catch_unwind(AssertUnwindSafe(|| script(&thread, &mut held))).is_err();
            source.fault(None);
            // SAFETY: the thread that owned the cache is gone, as in the child of a fork.
            unsafe {
                thread.cache.salvage(&source, &budget, |class, object| {
                    source.books().out.get(&(object as usize)) == Some(&class)
                });
            }
            for (class, object) in held {
                // SAFETY: held by the program all the time, and so of no concern to the salvage.
                unsafe {
                    let chain = tiermalloc_thread_cache::Chain { head: object, count: 1 };
                    tiermalloc_thread_cache::Chain::link(object, ptr::null_mut());
                    tiermalloc_thread_cache::ObjectSource::store(&source, class, chain).unwrap();
                }
            }
            let books = source.books();
            let stranded: BTreeSet<usize> = books.out.keys().copied().collect();
            let on_the_way: BTreeSet<usize> = books.lost.iter().copied().collect();
            // One more may be lost: the object that the program was freeing.
            assert!(stranded.difference(&on_the_way).count() <= 1, "{n} {after}: {stranded:x?}");
            assert_eq!(budget.unclaimed(), 64 * MIB);
            n += 1;
        }
        assert!(n > 30, "{n}");
    }
    let _ = std::panic::take_hook();
}

#[test]
fn the_salvage_of_a_damaged_list_ends() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let class = class_of_size(64);
    let out =
        |class: Class, object: *mut u8| source.books().out.get(&(object as usize)) == Some(&class);
    let thread = Thread::new(&source, &budget, &registry);
    let all: Vec<_> = (0..20).map(|_| thread.alloc(class)).collect();
    all[..10].iter().for_each(|&object| thread.free(class, object));
    // A circle, and then a link to nowhere.
    // SAFETY: the objects are free, and the damage is the point.
    unsafe {
        all[4].cast::<*mut u8>().write(all[7]);
        thread.cache.salvage(&source, &budget, out);
        all[15].cast::<usize>().write(0xdead_beef_0000);
        thread.free(class, all[16]);
    }
    all[10..16].iter().for_each(|&object| thread.free(class, object));
    // SAFETY: as above.
    unsafe {
        all[15].cast::<usize>().write(0xdead_beef_0000);
        thread.cache.salvage(&source, &budget, out);
    }
    assert_eq!(budget.unclaimed(), 64 * MIB);
}

#[test]
fn a_misuse_that_the_source_reports_reaches_the_caller() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    let thread = Thread::new(&source, &budget, &registry);
    let (class, other) = (class_of_size(64), class_of_size(128));
    let theirs = thread.alloc(other);
    thread.free(class, theirs);
    assert_eq!(thread.retire(), Err(Misuse::Foreign(theirs, class)));

    let thread = Thread::new(&source, &budget, &registry);
    let mut wrong = Aligned([0; 64]);
    let wrong: *mut u8 = wrong.0.as_mut_ptr();
    let all: Vec<_> = (0..class.batch()).map(|_| thread.alloc(class)).collect();
    let mut answer = thread.try_free(class, wrong);
    for object in all {
        answer = answer.and_then(|()| thread.try_free(class, object));
    }
    answer = answer.and_then(|()| thread.retire());
    assert_eq!(answer, Err(Misuse::DoubleFree(wrong, class)), "the mock knows it as not out");
}

/// Aligned as every object of its size is.
#[repr(align(64))]
struct Aligned([u8; 64]);

#[test]
fn a_pointer_into_an_object_is_reported_before_it_leaves_if_it_is_less_aligned_than_objects_are() {
    let (budget, registry) = (plenty(), Registry::new());
    for (size, offset) in [(16, 8), (64, 16), (64, 32), (1024, 512), (8192, 8), (28672, 4096 - 8)] {
        let source = Objects::new();
        let class = class_of_size(size);
        for place in 0..6 {
            let thread = Thread::new(&source, &budget, &registry);
            let mut all: Vec<_> = (0..6).map(|_| thread.alloc(class)).collect();
            let inside = all[place].wrapping_add(offset);
            all[place] = inside;
            source.forget();
            let mut answer = all.iter().try_for_each(|&object| thread.try_free(class, object));
            if class.batch() == 1 {
                // One by one: it is the source's to see.
                continue;
            }
            answer = answer.and_then(|()| thread.retire());
            assert_eq!(answer, Err(Misuse::NotAnObject(inside, class)), "{size} {offset} {place}");
        }
    }
}

#[test]
fn verify_finds_in_a_bin_what_a_double_free_or_a_free_of_no_object_left_there() {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    source.books().misused = true;
    let class = class_of_size(64);
    let out =
        |class: Class, object: *mut u8| source.books().out.get(&(object as usize)) == Some(&class);
    for distance in [0, 1, 2, 3, 8, 20] {
        let thread = Thread::new(&source, &budget, &registry);
        let all: Vec<_> = (0..24).map(|_| thread.alloc(class)).collect();
        all.iter().for_each(|&object| thread.free(class, object));
        // SAFETY: the cache is this thread's.
        unsafe { assert_eq!(thread.cache.verify(out), Ok(())) };
        let again = if distance == 0 { all[5].wrapping_add(8) } else { all[24 - distance] };
        thread.free(class, again);
        // SAFETY: as above.
        let found = unsafe { thread.cache.verify(out) };
        if distance == 0 {
            assert_eq!(found, Err(Misuse::NotAnObject(again, class)));
        } else {
            assert!(matches!(found, Err(Misuse::DoubleFree(_, of)) if of == class), "{distance}");
        }
    }
}

/// Frees every object once and one of them twice, `distance` frees later, with nothing allocated in
/// between, and ends the cache. Returns whether and how that was seen.
fn double_free(class: Class, before: usize, distance: usize, behind: usize) -> Result<(), Misuse> {
    let (source, budget, registry) = (Objects::new(), plenty(), Registry::new());
    source.books().misused = true;
    let thread = Thread::new(&source, &budget, &registry);
    let all: Vec<_> = (0..before + distance + behind).map(|_| thread.alloc(class)).collect();
    let (first, rest) = all.split_at(before + distance);
    let again = first[before];
    first
        .iter()
        .chain([&again])
        .chain(rest)
        .try_for_each(|&object| thread.try_free(class, object))?;
    thread.retire()
}

#[test]
fn a_double_free_is_reported_when_the_bin_is_flushed_wherever_the_two_are() {
    for class in [16, 2688, 8192, 28672].map(class_of_size) {
        let batch = class.batch();
        for before in [0, 1, 5, batch] {
            for distance in 1..=2 * batch + 1 {
                for behind in [0, 1, 2, 7, batch, 3 * batch] {
                    let answer = double_free(class, before, distance, behind);
                    assert!(
                        matches!(answer, Err(Misuse::DoubleFree(_, of)) if of == class),
                        "{class:?} {before} {distance} {behind}: {answer:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_double_free_is_reported_when_a_scavenge_finds_it() {
    for distance in 1..70 {
        let (source, registry) = (Objects::new(), Registry::new());
        source.books().misused = true;
        let budget = Budget::new(128 * 1024, 128 * 1024);
        let thread = Thread::new(&source, &budget, &registry);
        let class = class_of_size(64);
        let all: Vec<_> = (0..distance).map(|_| thread.alloc(class)).collect();
        let mut answer =
            all.iter().chain([&all[0]]).try_for_each(|&object| thread.try_free(class, object));
        let other = class_of_size(256 * 1024);
        for _ in 0..2 * STEPS {
            answer = answer.and_then(|()| {
                let object = thread.try_alloc(other)?;
                thread.try_free(other, object)
            });
        }
        let answer = answer.and_then(|()| thread.retire());
        assert!(
            matches!(answer, Err(Misuse::DoubleFree(_, of)) if of == class),
            "{distance}: {answer:?}"
        );
    }
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
    for thread in 0..60 {
        let part = budget.unclaimed() / 16;
        let got = budget.claim(1000, 0);
        assert_eq!(got, part.min(90), "a 16th of what is left");
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
        let mut orphan = registry.take_all_but(Some(pointers[2]));
        let mut orphans = BTreeSet::new();
        while let Some(cache) = orphan {
            assert!(orphans.insert(cache.as_ptr()));
            orphan = registry.take_next(cache);
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
    registry.ask_another(&asking.cache, MIB);
    // SAFETY: added above.
    unsafe { registry.remove(NonNull::from(&*leaving.cache)) };
    registry.ask_another(&asking.cache, MIB);
    let class = class_of_size(64);
    leaving.free(class, leaving.alloc(class));
    let limit = leaving.cache.limit();
    assert!(limit > 0);
    leaving.alloc(class_of_size(128));
    assert_eq!(leaving.cache.limit(), limit, "it was asked to give it back");
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
