//! What holds with several shards: where objects go home to, what one shard gets from others, and that nothing
//! is left out by what looks at all of them. What shards keep is in `kept.rs`.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{
    Cache, KIB, MIB, chain_of, class_of_size, empty_of_all, fetch_all, fetch_near, fetch_one, held,
    objects, owner, store_each, store_near, whole_span, with_cache, with_shards,
};
use tiermalloc_central_cache::{ClassCounts, SHARDS};
use tiermalloc_size_class::Class;
use tiermalloc_sync::Patience;

/// Everything is in its place, and nothing is out.
fn nothing_is_left(cache: &Cache<'_>) {
    empty_of_all(cache);
    cache.free_kept_spans();
    assert!(Class::all().all(|class| held(cache, class) == (0, 0, 0)));
    assert_eq!((cache.source().spans_out(), cache.held_bytes()), (0, 0));
}

fn counts(cache: &Cache<'_>, class: Class) -> ClassCounts {
    cache.counts(class, true, &mut Patience::ENDLESS.clone()).unwrap()
}

#[test]
fn objects_go_home_to_the_shard_of_their_span_wherever_they_are_freed() {
    with_shards(4, |cache| {
        let class = class_of_size(1024);
        for home in 0..4 {
            let all = whole_span(cache.near(home), class);
            assert!(all.iter().all(|&object| owner(cache, object) == home));
            for other in 0..4 {
                store_near(cache.near(other), class, &all[2..5]);
                assert_eq!(cache.stats(class).out, 5);
                // Nobody else is served from so few, and the shard before it takes fresh memory.
                let elsewhere = fetch_one(cache.near(home + 1), class);
                assert_eq!(owner(cache, elsewhere), (home + 1) % 4);
                assert_eq!(fetch_near(cache.near(home), class, 3), &all[2..5]);
                store_each(cache, class, [elsewhere]);
            }
            store_each(cache, class, all);
        }
        nothing_is_left(cache);
    });
}

#[test]
fn a_chain_of_several_shards_objects_goes_home_to_each_of_them() {
    with_shards(4, |cache| {
        let class = class_of_size(248);
        let spans: Vec<_> = (0..4).map(|home| whole_span(cache.near(home), class)).collect();
        // More than a batch: three of each in turn, but for the first ones, which keep the spans.
        let mixed: Vec<*mut u8> =
            (1..33).step_by(2).flat_map(|i| spans.iter().map(move |span| span[i])).collect();
        assert_eq!(mixed.len(), 2 * class.batch());
        store_near(cache.near(2), class, &mixed);
        assert_eq!(held(cache, class), (4, 4 * 33 - 64, 0));
        for (home, span) in spans.iter().enumerate() {
            let odd: Vec<*mut u8> = span.iter().copied().skip(1).step_by(2).collect();
            assert_eq!(fetch_near(cache.near(home), class, 16), odd, "of shard {home}");
        }
        store_each(cache, class, spans.into_iter().flatten());
        nothing_is_left(cache);
    });
}

#[test]
fn spans_that_empty_in_the_middle_of_a_mixed_chain_leave_once() {
    with_shards(2, |cache| {
        let class = class_of_size(12288);
        let [a, b, c] = [0, 1, 1].map(|home| whole_span(cache.near(home), class));
        let all = [a[0], b[0], a[1], c[0], b[1]];
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(class, chain_of(&all)) }.unwrap();
        assert_eq!(held(cache, class), (1, 1, 0));
        assert_eq!((cache.source().spans_out(), owner(cache, c[1])), (1, 1));
        assert_eq!(fetch_near(cache.near(1), class, 1), [c[0]]);
        store_each(cache, class, c);
        // Each object a span of its own, more of them than go in one turn.
        let class = class_of_size(16384);
        let all: Vec<_> = (0..100).map(|n| fetch_one(cache.near(n), class)).collect();
        let before = cache.source().freed.load(Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { cache.store_to_spans(class, chain_of(&all)) }.unwrap();
        assert_eq!(cache.source().freed.load(Ordering::Relaxed), before + 100);
        nothing_is_left(cache);
    });
}

#[test]
fn a_batch_is_found_from_everywhere_first_at_home_and_then_nearby() {
    with_shards(4, |cache| {
        let class = class_of_size(2048);
        let batches: Vec<_> =
            (0..4).map(|home| fetch_near(cache.near(home), class, class.batch())).collect();
        for me in 0..4 {
            for (at, batch) in batches.iter().enumerate() {
                assert!(!cache.near(at).has_batches(class));
                store_near(cache.near(at), class, batch);
                assert!(cache.near(at).has_batches(class) && cache.has_batches(class));
                assert_eq!(cache.near(at).held_bytes(), class.batch() * class.size());
                assert_eq!(cache.held_bytes(), (at + 1) * class.batch() * class.size());
            }
            // Less than a batch comes from nobody's transfer cache.
            let one = fetch_one(cache.near(me), class);
            assert_eq!(cache.stats(class).transfer, 4 * class.batch());
            for step in 0..4 {
                let got = objects(cache.near(me).fetch(class, class.batch()));
                assert_eq!(got, batches[me ^ step], "{step} steps from {me}");
                assert_eq!(cache.near(me ^ step).held_bytes(), 0);
            }
            assert!(!cache.has_batches(class));
            store_each(cache, class, [one]);
        }
        store_each(cache, class, batches.into_iter().flatten());
        nothing_is_left(cache);
    });
}

#[test]
fn a_class_takes_from_another_shard_only_what_is_more_than_two_spans_worth() {
    with_shards(4, |cache| {
        let class = class_of_size(1024);
        let far: Vec<_> = (0..3).map(|_| whole_span(cache.near(3), class)).collect();
        let give = |span: usize, range: std::ops::Range<usize>| {
            store_each(cache, class, far[span][range].iter().copied());
        };
        (0..2).for_each(|span| give(span, 0..6));
        give(2, 0..4);
        // Two spans' worth is what the others have to leave.
        let mine = whole_span(cache.near(0), class);
        assert!(mine.iter().all(|&object| owner(cache, object) == 0));
        assert_eq!(held(cache, class), (4, 8 + 8, 0));
        give(2, 4..5);
        let fullest = fetch_near(cache.near(0), class, 1);
        assert!(far[2][..5].contains(&fullest[0]), "the 17th, from the fullest of them");
        // And now there are 16 again, as many as they keep.
        let fresh = fetch_near(cache.near(0), class, 2);
        assert_eq!((owner(cache, fresh[0]), held(cache, class).0), (0, 5));
        // A shard with free objects of its own looks nowhere else, and who has plenty is asked for all that is wanted.
        store_each(cache, class, fullest.iter().chain(&fresh[1..]).copied());
        let mine_too = fetch_near(cache.near(0), class, 7);
        assert!(mine_too.iter().all(|&object| owner(cache, object) == 0));
        let theirs = objects(cache.near(0).fetch(class, 7));
        assert!(theirs.len() == 7 && theirs.iter().all(|&object| owner(cache, object) == 3));
        store_each(cache, class, mine.into_iter().chain(mine_too).chain(fresh[..1].to_vec()));
        store_each(cache, class, theirs);
        let kept = far.iter().enumerate().flat_map(|(n, span)| &span[if n < 2 { 6 } else { 5 }..]);
        store_each(cache, class, kept.copied());
        nothing_is_left(cache);
    });
}

#[test]
fn what_is_counted_is_the_sum_over_all_shards() {
    with_shards(4, |cache| {
        let class = class_of_size(1024);
        let spans: Vec<_> = (0..4).map(|home| whole_span(cache.near(home), class)).collect();
        let now = counts(cache, class);
        assert_eq!((now.spans, now.out, now.transfer), (4, 32, 0));
        assert_eq!((now.fetches, now.fetched, now.stores, now.stored), (32, 32, 0, 0));
        assert_eq!(now.survey.by_eighths[8], 4);
        assert_eq!(cache.touched_bytes(1024), 32 * KIB);
        // Two batches of two shards' objects each, near a third one; one of them is wanted, far away.
        let (one, two) = (spans[..2].concat(), spans[2..].concat());
        store_near(cache.near(1), class, &one);
        store_near(cache.near(1), class, &two);
        assert_eq!(held(cache, class), (4, 32, 32));
        assert_eq!(objects(cache.near(2).fetch(class, 16)), two);
        let now = counts(cache, class);
        assert_eq!((now.transfer, now.transfer_hits, now.fetches, now.fetched), (16, 1, 33, 48));
        assert_eq!((now.stores, now.stored, now.drained), (2, 32, 0));
        // The other one goes home, to two shards, and of the first one a part does, in one chain.
        assert_eq!(cache.drain(class, usize::MAX), Ok(16));
        store_near(cache.near(0), class, &[two[0], two[8], two[1]]);
        let now = counts(cache, class);
        assert_eq!((now.spans, now.out, now.transfer, now.drained), (2, 13, 0, 1));
        assert_eq!((now.stores, now.stored, now.fetched - now.stored), (3, 35, 13));
        assert_eq!(now.survey.by_eighths.iter().sum::<usize>(), 2);
        store_each(cache, class, two.into_iter().skip(2).filter(|&object| object != spans[3][0]));
        nothing_is_left(cache);
        assert_eq!(counts(cache, class).stored, 48);
    });
}

#[test]
fn plundering_in_turn_comes_past_every_class_of_every_shard_the_own_one_first() {
    with_shards(4, |cache| {
        let classes = [1, 16, 17, 100, 156, 207, 208].map(|id| Class::from_id(id).unwrap());
        for class in classes {
            let all = fetch_near(cache.near(0), class, 4 * class.batch());
            all.chunks(class.batch())
                .zip(0..)
                .for_each(|(b, n)| store_near(cache.near(n), class, b));
        }
        // 13 times is once around; four times that begins all periods. Before, batches come and go.
        let empty = |at: usize| classes.iter().all(|&class| !cache.near(at).has_batches(class));
        for _ in 0..4 * 13 {
            cache.near(2).plunder_next().unwrap();
        }
        for at in [2, 3, 0, 1] {
            assert!(!empty(at));
            (0..13).for_each(|_| cache.near(2).plunder_next().unwrap());
            assert!(empty(at), "shard {at} had its turn");
        }
        nothing_is_left(cache);
    });
}

#[test]
fn what_is_sent_home_by_class_is_that_of_all_shards() {
    with_shards(4, |cache| {
        let class = class_of_size(2048);
        let batches: Vec<_> =
            (0..4).map(|at| fetch_near(cache.near(at), class, class.batch())).collect();
        (0..4).for_each(|at| store_near(cache.near(at), class, &batches[at]));
        assert_eq!(cache.plunder(class), Ok(0), "the first look only begins a period");
        assert_eq!(objects(cache.near(1).fetch(class, 8)), batches[1]);
        store_near(cache.near(1), class, &batches[1]);
        assert_eq!(cache.near(3).plunder(class), Ok(8));
        assert_eq!(cache.plunder(class), Ok(16), "one of three was wanted");
        store_near(cache.near(0), class, &fetch_near(cache.near(2), class, 8));
        assert_eq!(cache.near(1).drain(class, 1), Ok(0), "it went to the first one");
        assert_eq!(cache.drain(class, 1), Ok(8));
        nothing_is_left(cache);
    });
}

#[test]
fn a_cache_widens_to_powers_of_two_and_never_narrows() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let first = whole_span(cache.near(5), class);
        assert!(first.iter().all(|&object| owner(cache, object) == 0), "there is only one");
        let batch = fetch_near(cache.near(7), class, class.batch());
        store_near(cache.near(7), class, &batch);
        for (wanted, shards) in
            [(0, 1), (1, 1), (3, 2), (2, 2), (7, 4), (1, 4), (8, 8), (100, SHARDS), (2, SHARDS)]
        {
            cache.widen(wanted);
            assert_eq!((cache.shards(), cache.each_shard().count()), (shards, shards));
            let other = class_of_size(16384);
            let all: Vec<_> = (0..2 * shards).map(|n| fetch_one(cache.near(n), other)).collect();
            let owners: Vec<_> = all.iter().map(|&object| owner(cache, object)).collect();
            assert!(owners.iter().enumerate().all(|(n, &at)| at == n % shards), "{owners:?}");
            store_each(cache, other, all);
        }
        // What was there before stays where it is, and is found.
        assert_eq!(objects(cache.near(15).fetch(class, class.batch())), batch);
        store_near(cache.near(9), class, &first[..3]);
        assert_eq!(fetch_near(cache.near(0), class, 3), &first[..3]);
        store_each(cache, class, first.into_iter().chain(batch));
        nothing_is_left(cache);
    });
}

#[test]
fn a_fork_waits_for_all_shards_and_leaves_them_usable() {
    with_shards(4, |cache| {
        // So much that shards keep spans.
        cache.source().reserve(64 * MIB);
        let class = class_of_size(1024);
        let done = AtomicUsize::new(0);
        cache.lock_for_fork();
        thread::scope(|scope| {
            let finish = || {
                done.fetch_add(1, Ordering::Relaxed);
            };
            for at in 0..4 {
                scope.spawn(move || {
                    let all = fetch_near(cache.near(at), class, class.batch());
                    store_near(cache.near(at), class, &all[1..]);
                    store_near(cache.near(at), class, &all[..1]);
                    finish();
                });
                scope.spawn(move || (cache.near(at).free_idle_spans(), finish()));
                scope.spawn(move || (cache.near(at).drain(class, 1).unwrap(), finish()));
            }
            scope.spawn(move || (cache.widen(8), finish()));
            thread::sleep(Duration::from_millis(50));
            let meanwhile = (done.load(Ordering::Relaxed), cache.shards());
            // SAFETY: taken above, by this thread.
            unsafe { cache.unlock_after_fork() };
            assert_eq!(meanwhile, (0, 4));
        });
        assert_eq!((done.load(Ordering::Relaxed), cache.shards()), (13, 8));
        cache.lock_for_fork();
        assert_eq!(cache.counts(class, false, &mut Patience::ms(2)), None);
        // SAFETY: as above.
        unsafe { cache.unlock_after_fork() };
        assert_eq!(held(cache, class), (0, 0, 0));
        nothing_is_left(cache);
    });
}

#[test]
fn threads_near_different_shards_pass_objects_around_and_none_is_lost() {
    with_cache(|cache| {
        cache.source().reserve(64 * MIB);
        cache.source().give_runs(true);
        let classes = [16, 1024, 12288, 40960].map(class_of_size);
        let parcels = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for me in 0..4 {
                let parcels = &parcels;
                scope.spawn(move || {
                    for round in 0..600 {
                        let (near, class) = (cache.near(me), classes[(me + round) % 4]);
                        let mut mine = objects(near.fetch(class, class.batch()));
                        near.make_way(class).unwrap();
                        for &object in &mine {
                            // SAFETY: the object is ours and at least 16 bytes long.
                            unsafe { object.cast::<[usize; 2]>().write([round, object as usize]) };
                        }
                        // What goes on is some of this one's and some of another one's.
                        let mut others = parcels.lock().unwrap();
                        let at = others.iter().position(|parcel: &Parcel| parcel.class == class);
                        let theirs = at.map(|at| others.swap_remove(at));
                        mine.extend(theirs.into_iter().flat_map(Parcel::open));
                        let half = mine.split_off(mine.len() / 2);
                        let half = half.into_iter().map(|object| object as usize).collect();
                        others.push(Parcel { class, objects: half });
                        drop(others);
                        mine.chunks(class.batch()).for_each(|some| store_near(near, class, some));
                        match round {
                            100 => cache.widen(me + 1),
                            _ if round % 50 == me => near.plunder_next().unwrap(),
                            _ if round % 70 == me => near.free_idle_spans(),
                            _ => {}
                        }
                    }
                });
            }
        });
        assert_eq!(cache.shards(), 4);
        for parcel in parcels.into_inner().unwrap() {
            store_near(cache.near(1), parcel.class, &parcel.open());
        }
        nothing_is_left(cache);
    });
}

/// Objects on their way from one thread to another, which their sender has written to.
struct Parcel {
    class: Class,
    objects: Vec<usize>,
}

impl Parcel {
    fn open(self) -> Vec<*mut u8> {
        let objects = self.objects.into_iter().map(|object| object as *mut u8);
        // SAFETY: the sender gave the object to us.
        objects.inspect(|&o| unsafe { assert_eq!(*o.cast::<usize>().add(1), o as usize) }).collect()
    }
}

#[test]
fn what_the_only_shard_had_free_is_known_to_those_that_come() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let all = fetch_all(cache, class, 10 * class.objects());
        let (kept, freed): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
        store_each(cache, class, freed.into_iter().map(|(_, object)| object));
        let spans = cache.source().spans_out();
        cache.widen(2);
        let one = fetch_one(cache.near(1), class);
        assert_eq!((cache.source().spans_out(), owner(cache, one)), (spans, 0));
        store_each(cache, class, kept.into_iter().map(|(_, object)| object).chain([one]));
        nothing_is_left(cache);
    });
}

#[test]
fn the_last_object_of_another_shard_is_found_when_there_is_no_memory() {
    with_shards(4, |cache| {
        for size in [64, 1024, 4096] {
            let class = class_of_size(size);
            let mut all = whole_span(cache.near(2), class);
            store_each(cache, class, all.pop());
            let spans = cache.source().spans_out();
            cache.source().refusals.refuse(1, usize::MAX);
            let one = cache.near(1).fetch_one(class).map(|(object, _)| object.as_ptr());
            assert_eq!(one.map(|object| owner(cache, object)), Some(2), "{size}");
            assert!(cache.near(1).fetch_one(class).is_none());
            cache.source().refusals.refuse(1, 0);
            assert_eq!(cache.source().spans_out(), spans);
            store_each(cache, class, all.into_iter().chain(one));
        }
        nothing_is_left(cache);
    });
}

#[test]
fn of_large_objects_any_that_others_have_are_taken_before_fresh_memory() {
    with_shards(2, |cache| {
        let several = |class: &Class| class.size() > 16 * KIB && class.objects() > 1;
        assert!(Class::all().any(|class| several(&class)));
        for class in Class::all().filter(several) {
            let mut all = whole_span(cache.near(0), class);
            store_each(cache, class, all.pop());
            let one = fetch_one(cache.near(1), class);
            assert_eq!(owner(cache, one), 0, "{class:?}");
            store_each(cache, class, all.into_iter().chain([one]));
        }
        nothing_is_left(cache);
    });
}
