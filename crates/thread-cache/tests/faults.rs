//! Sources that refuse or give little, at every point; and caches whose thread is cut off at every point.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use support::{
    CutOff, Fault, MIB, Objects, Registry, STEPS, Thread, class_of_size, plenty, slow_steps,
};
use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::Budget;

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
fn a_salvage_finds_what_lay_aside() {
    let class = class_of_size(64);
    // At one of these the objects have been put aside and not sent back yet.
    for steps in (1..2 * STEPS).step_by(STEPS / 4) {
        let (source, registry) = (Objects::new(), Registry::new());
        let budget = Budget::new(128 * 1024, 128 * 1024);
        let thread = Thread::new(&source, &budget, &registry);
        let all: Vec<_> = (0..50).map(|_| thread.alloc(class)).collect();
        all.iter().for_each(|&object| thread.free(class, object));
        slow_steps(&thread, steps);
        let out = |class: Class, object: *mut u8| {
            source.books().out.get(&(object as usize)) == Some(&class)
        };
        // SAFETY: the thread that owned the cache does nothing any more.
        unsafe { thread.cache.salvage(&source, &budget, out) };
        assert_eq!(source.books().out.len(), 0, "after {steps} steps");
    }
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
