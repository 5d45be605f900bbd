//! The first objects of a list go home as they are met in it.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr;

use support::{
    Cache, chain_of, class_of_size, fetch_all, fetch_near, held, owner, store_each, with_cache,
    with_shards,
};
use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{Class, MAX_BATCH};
use tiermalloc_sync::Patience;

/// Sends the first `count` objects home. What is left of the list, as far as that was told.
fn send(cache: &Cache<'_>, class: Class, list: *mut u8, count: usize) -> Result<*mut u8, Misuse> {
    let mut told = None;
    let out = |rest| {
        assert!(told.replace(rest).is_none(), "told once");
        Ok(())
    };
    // SAFETY: the objects are the test's, or misused, which is the point.
    unsafe { cache.store_first_to_spans(class, list, count, out)? };
    Ok(told.expect("told"))
}

/// Numbers below `count` in an order far from any.
fn mixed(count: usize) -> impl Iterator<Item = usize> {
    assert_ne!(count % 7919, 0);
    (0..count).map(move |n| n * 7919 % count)
}

#[test]
fn in_whatever_order_they_lie_all_come_home_and_the_list_goes_on_behind_them() {
    with_cache(|cache| {
        for class in [8, 16, 48, 64, 528, 1024, 4096, 34816].map(class_of_size) {
            let count = (5 * class.objects() + 3).min(2000);
            for order in 0..4 {
                let mut all = fetch_all(cache, class, count);
                match order {
                    0 => (),
                    1 => all.reverse(),
                    2 => all = mixed(count).map(|n| all[n]).collect(),
                    // By turns from the begin and the end: another span each time.
                    _ => {
                        let turn = |n| if n % 2 == 0 { n / 2 } else { count - 1 - n / 2 };
                        all = (0..count).map(|n| all[turn(n)]).collect();
                    }
                }
                let (mut list, mut sent) = (chain_of(&all).head, 0);
                for step in (1..=MAX_BATCH).cycle() {
                    let now = step.min(count - sent);
                    list = send(cache, class, list, now).unwrap();
                    sent += now;
                    assert_eq!(list, all.get(sent).copied().unwrap_or(ptr::null_mut()));
                    assert_eq!(cache.stats(class).out, count - sent);
                    if sent == count {
                        break;
                    }
                }
                assert_eq!(held(cache, class), (0, 0, 0), "{class:?} {order}");
                assert_eq!(cache.source().spans_out(), 0);
            }
        }
    });
}

#[test]
fn what_came_home_is_given_out_in_order_and_from_the_fullest_span() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 4 * class.objects());
        // Of each span other eighths: 1, 3, 5 and 7 of 8 go.
        let goes = |n: usize| n % 8 < 2 * (n / class.objects()) + 1;
        let gone: Vec<_> = mixed(all.len()).filter(|&n| goes(n)).map(|n| all[n]).collect();
        let mut list = chain_of(&gone).head;
        for part in gone.chunks(MAX_BATCH) {
            list = send(cache, class, list, part.len()).unwrap();
        }
        let counts = cache.counts(class, true, &mut Patience::ENDLESS.clone()).unwrap();
        assert_eq!(counts.survey.by_eighths, [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        let again: Vec<_> = gone.iter().map(|_| fetch_all(cache, class, 1)[0]).collect();
        let expected: Vec<_> = (0..all.len()).filter(|&n| goes(n)).map(|n| all[n]).collect();
        assert_eq!(again, expected);
        store_each(cache, class, all);
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn the_list_is_told_before_anybody_else_may_have_the_objects() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 40);
        let list = chain_of(&all).head;
        let told = |rest| {
            assert!(cache.near(0).is_busy(class), "the class is locked");
            assert_eq!(rest, all[20]);
            Ok(())
        };
        // SAFETY: the objects are the test's.
        unsafe { cache.store_first_to_spans(class, list, 20, told) }.unwrap();
        assert!(!cache.near(0).is_busy(class));
        // Its error is passed on.
        let error = Misuse::DoubleFree(all[21], class);
        // SAFETY: as above.
        let answer = unsafe { cache.store_first_to_spans(class, all[20], 1, |_| Err(error)) };
        assert_eq!(answer, Err(error));
        assert!(!cache.near(0).is_busy(class));
        store_each(cache, class, all.into_iter().skip(21));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn objects_of_several_shards_go_home_to_each() {
    with_shards(4, |cache| {
        let class = class_of_size(48);
        let theirs: Vec<_> = (0..4).map(|n| fetch_near(cache.near(n), class, 50)).collect();
        let all: Vec<_> = (0..200).map(|n| theirs[n % 4][n / 4]).collect();
        assert!((0..8).all(|n| owner(cache, all[n]) == n % 4));
        let mut list = chain_of(&all).head;
        for part in all.chunks(30) {
            list = send(cache, class, list, part.len()).unwrap();
        }
        assert!(list.is_null());
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

/// What is no list of so many objects that are out, and what it is reported as.
fn wrong(cache: &Cache<'_>, class: Class, all: &[*mut u8]) -> Vec<(Vec<*mut u8>, Misuse)> {
    let inside = all[3].wrapping_add(8);
    let stranger: *mut u8 = Box::into_raw(Box::new([0u64; 8])).cast();
    let other = fetch_all(cache, class_of_size(128), 1)[0];
    let free = fetch_all(cache, class, 1)[0];
    store_each(cache, class, [free]);
    vec![
        (vec![inside], Misuse::NotAnObject(inside, class)),
        (vec![all[0], all[1], inside], Misuse::NotAnObject(inside, class)),
        (vec![all[0], free], Misuse::DoubleFree(free, class)),
        (vec![free, all[0]], Misuse::DoubleFree(free, class)),
        (vec![all[0], stranger], Misuse::Foreign(stranger, class)),
        (vec![other, all[0]], Misuse::Foreign(other, class)),
        (vec![all[0], all[1], other], Misuse::Foreign(other, class)),
    ]
}

#[test]
fn what_is_no_object_of_the_class_that_is_out_is_reported() {
    for shards in [1, 2] {
        with_shards(shards, |cache| {
            let class = class_of_size(64);
            let all = fetch_all(cache, class, 40);
            for (list, misuse) in wrong(cache, class, &all) {
                let head = chain_of(&list).head;
                assert_eq!(send(cache, class, head, list.len()), Err(misuse), "{list:?}");
                // Those before it are at home.
                let at = list.iter().position(|object| !all.contains(object)).unwrap();
                assert_eq!(cache.stats(class).out, 40 - at);
                assert_eq!(fetch_all(cache, class, at), list[..at], "they were the lowest");
                assert!(!cache.near(0).is_busy(class));
            }
            store_each(cache, class, all);
        });
    }
}

#[test]
fn a_list_that_ends_early_or_runs_in_a_circle_is_reported() {
    for shards in [1, 2] {
        with_shards(shards, |cache| {
            let class = class_of_size(64);
            for (there, count) in [(1, 2), (5, 6), (5, 32), (31, 32)] {
                let all = fetch_all(cache, class, there);
                let list = chain_of(&all).head;
                let last = all[there - 1];
                assert_eq!(send(cache, class, list, count), Err(Misuse::DoubleFree(last, class)));
                let out = cache.stats(class).out;
                // With several shards none has gone home, with one all have.
                assert_eq!(out, if shards == 1 { 0 } else { there });
                if out > 0 {
                    store_each(cache, class, all);
                }
            }
            // No object at all.
            let nothing = Err(Misuse::DoubleFree(ptr::null_mut(), class));
            assert_eq!(send(cache, class, ptr::null_mut(), 1), nothing);
            let stays = fetch_all(cache, class, 1);
            for (there, back_to) in [(1, 0), (2, 0), (2, 1), (20, 7)] {
                let all = fetch_all(cache, class, there);
                let list = chain_of(&all).head;
                // SAFETY: the misuse is the point.
                unsafe { Chain::link(all[there - 1], all[back_to]) };
                let twice = Err(Misuse::DoubleFree(all[back_to], class));
                assert_eq!(send(cache, class, list, 32), twice);
                // All but what stays is at home, or all is out: with several shards one that leads to itself is seen before.
                match cache.stats(class).out {
                    1 => (),
                    out => {
                        assert_eq!((shards, out), (2, there + 1));
                        store_each(cache, class, all);
                    }
                }
            }
            store_each(cache, class, stays);
        });
    }
}

#[test]
fn a_list_that_leads_back_into_what_goes_home_is_reported_before_it_is_told() {
    for shards in [1, 2] {
        with_shards(shards, |cache| {
            let class = class_of_size(64);
            for (count, back_to) in [(1, 0), (2, 1), (2, 0), (32, 31), (32, 30), (32, 0), (17, 3)] {
                // All objects of their span, or not.
                for stays in [0, 1] {
                    let stay = fetch_all(cache, class, stays);
                    let all = fetch_all(cache, class, count);
                    let list = chain_of(&all).head;
                    // SAFETY: the misuse is the point.
                    unsafe { Chain::link(all[count - 1], all[back_to]) };
                    let mut told = false;
                    let out = |_| {
                        told = true;
                        Ok(())
                    };
                    // SAFETY: as above.
                    let answer = unsafe { cache.store_first_to_spans(class, list, count, out) };
                    // With several shards only the last one is looked at.
                    if shards == 1 || back_to + 1 == count {
                        assert_eq!(answer, Err(Misuse::DoubleFree(all[back_to], class)));
                        assert!(!told);
                    }
                    if cache.stats(class).out > stays {
                        store_each(cache, class, all);
                    }
                    store_each(cache, class, stay);
                    assert_eq!(held(cache, class), (0, 0, 0));
                }
            }
        });
    }
}

#[test]
fn a_circle_over_several_spans_is_reported_before_the_list_is_told() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let objects = class.objects();
        for (count, back_to) in [(2, 0), (2, 1), (3, 0), (32, 0), (32, 1), (32, 30)] {
            let all = fetch_all(cache, class, 2 * objects);
            let turns: Vec<_> = (0..count).map(|n| all[n % 2 * objects + n / 2]).collect();
            let list = chain_of(&turns).head;
            // SAFETY: the misuse is the point.
            unsafe { Chain::link(turns[count - 1], turns[back_to]) };
            // SAFETY: as above.
            let answer =
                unsafe { cache.store_first_to_spans(class, list, count, |_| panic!("told")) };
            assert_eq!(answer, Err(Misuse::DoubleFree(turns[back_to], class)), "{count}");
            store_each(cache, class, all.into_iter().filter(|object| !turns.contains(object)));
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn what_a_program_has_written_to_a_link_is_reported_or_followed_but_not_read() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, 3);
        for link in [8, 0x1234_5678, usize::MAX - 7, 0x7fff_ffff_f000, 1 << 62] {
            let list = chain_of(&all[..2]).head;
            // SAFETY: the misuse is the point.
            unsafe { Chain::link(all[1], link as *mut u8) };
            let foreign = Err(Misuse::Foreign(link as *mut u8, class));
            assert_eq!(send(cache, class, list, 3), foreign, "{link:#x}");
            assert_eq!(fetch_all(cache, class, 2), all[..2]);
        }
        store_each(cache, class, all);
    });
}

#[test]
fn a_span_is_let_go_once_when_its_last_object_has_come() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let all = fetch_all(cache, class, 3 * class.objects());
        assert_eq!(cache.source().spans_out(), 3);
        // Two spans empty in the same call, by turns.
        let objects = class.objects();
        let both: Vec<_> = (0..2 * objects).map(|n| all[n % 2 * objects + n / 2]).collect();
        let mut list = chain_of(&both).head;
        while !list.is_null() {
            list = send(cache, class, list, MAX_BATCH.min(both.len())).unwrap();
        }
        assert_eq!(cache.source().spans_out(), cache.stats(class).spans);
        assert_eq!(cache.stats(class).spans, 1);
        store_each(cache, class, all.into_iter().skip(2 * objects));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}
