//! Threads that come and go.

mod support;

use std::cell::RefCell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use support::{Random, alone, alone_in_tiers, resident, resident_settled};
use tiermalloc::{Stats, raw, stats, trim};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

/// What a short-lived thread does: some hundred KiB of all kinds, a part of it left to others.
fn short_life(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for n in 0..300 {
        kept.push(vec![n as u8; random.size(30_000)]);
        if kept.len() > 100 {
            kept.swap_remove(random.below(100));
        }
    }
    kept.truncate(20);
    kept
}

/// Eight threads at a time, whose leavings the main thread frees.
fn threads_come_and_go(count: u64) {
    for round in 0..count / 8 {
        let threads: Vec<_> =
            (0..8).map(|n| std::thread::spawn(move || short_life(round * 8 + n))).collect();
        for thread in threads {
            let left = thread.join().unwrap();
            assert!(left.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
        }
    }
}

/// A scope waits for what its threads do, and not for their very end.
fn wait_until_threads_are(count: usize) {
    while stats().threads > count {
        std::thread::yield_now();
    }
}

#[test]
fn memory_returns_to_where_it_was_after_a_thousand_threads() {
    if support::is_emulated() {
        println!("skipped: an emulator's memory is not the program's");
        return;
    }
    alone("memory_returns_to_where_it_was_after_a_thousand_threads", || {
        threads_come_and_go(48);
        trim(0);
        let trimmed = resident();
        // The main thread frees what the others leave, and its own cache takes its time to fill.
        threads_come_and_go(240);
        let (before, after_warm_up) = (stats(), resident());
        threads_come_and_go(1000);
        let bound = after_warm_up + after_warm_up / 10 + (1 << 20);
        let (after, now) = (stats(), resident_settled(bound));
        assert_eq!(after.threads, before.threads);
        assert!(
            now <= bound,
            "resident: {after_warm_up} before, {now} after; {before:?} {after:?}"
        );
        assert!(after.live <= before.live + 64 * 1024, "{before:?} {after:?}");
        trim(0);
        let now = resident();
        assert!(
            now <= trimmed + trimmed / 10 + (1 << 20),
            "trimmed: {trimmed} before, {now} after"
        );
    });
}

#[test]
fn a_thousand_threads_at_once_leave_nothing_behind() {
    alone("a_thousand_threads_at_once_leave_nothing_behind", || {
        threads_come_and_go(48);
        trim(0);
        let before = stats();
        let barrier = Barrier::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..1000 {
                let builder = std::thread::Builder::new().stack_size(64 * 1024);
                let work = || {
                    let kept: Vec<Box<[u8; 100]>> = (0..50).map(|n| Box::new([n; 100])).collect();
                    barrier.wait();
                    assert!(kept.iter().enumerate().all(|(n, bytes)| bytes[99] == n as u8));
                };
                builder.spawn_scoped(scope, work).expect("a thread");
            }
        });
        wait_until_threads_are(before.threads);
        trim(0);
        // Not resident memory: libc keeps the threads' stacks.
        let after = stats();
        let kept = |stats: Stats| stats.live + stats.span_free + stats.free_dirty + stats.metadata;
        assert!(kept(after) <= kept(before) + 512 * 1024, "{before:?} {after:?}");
    });
}

#[test]
fn objects_outlive_the_threads_that_made_them() {
    let (sender, receiver) = channel();
    for seed in 0..20 {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(short_life(seed)).unwrap());
    }
    drop(sender);
    for left in receiver {
        assert!(left.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
    }
}

#[test]
fn a_thread_that_only_frees_does_not_hoard() {
    alone_in_tiers("a_thread_that_only_frees_does_not_hoard", || {
        let (sender, receiver) = channel::<Vec<Box<[u8; 200]>>>();
        let freer = std::thread::spawn(move || receiver.into_iter().for_each(drop));
        let (mut peak, mut behind) = (0, 0);
        for round in 0..200 {
            sender.send((0..500).map(|_| Box::new([round as u8; 200])).collect()).unwrap();
            let stats = stats();
            peak = peak.max(stats.thread_caches);
            behind = behind.max(stats.live);
        }
        drop(sender);
        freer.join().unwrap();
        // 20 MB went through; a cache keeps a batch of each class that it only frees.
        assert!(peak < 2 << 20, "{peak}");
        // What it has sent on is what comes next: the heap is as large as it was behind, and a step of its growth.
        let mapped = stats().mapped;
        assert!(mapped < 2 * behind + (6 << 20), "{mapped} {behind}");
    });
}

thread_local! {
    /// Dropped at the thread's end, before the allocator's own destructor.
    static AT_THE_END: RefCell<Option<Allocates>> = const { RefCell::new(None) };
}

/// Allocates and frees when it is dropped.
struct Allocates(Vec<u8>);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Allocates {
    fn drop(&mut self) {
        let mut more: Vec<String> = (0..50).map(|n| format!("{n} {:?}", self.0)).collect();
        more.retain(|text| text.len() % 2 == 0);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_thread_local_value_allocates_and_frees_when_it_is_dropped() {
    let before = DROPPED.load(Ordering::Relaxed);
    for n in 0..100u8 {
        let thread = std::thread::spawn(move || {
            AT_THE_END.with_borrow_mut(|slot| *slot = Some(Allocates(vec![n; 10])));
        });
        thread.join().unwrap();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), before + 100);
}

static LATE_KEY: AtomicUsize = AtomicUsize::new(usize::MAX);
static LATE_CALLS: AtomicUsize = AtomicUsize::new(0);
/// A block that was allocated after the allocator's own destructor had run.
static LEFT_BEHIND: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Runs after the allocator's destructor, because its key is younger, and again in every further round
/// of destructors, because it sets its value anew.
unsafe extern "C" fn late(value: *mut libc::c_void) {
    LATE_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the value is a block of raw::malloc's, which nobody else has.
    unsafe {
        raw::free(value.cast());
        let blocks = [1, 100, 5000, 100_000, 300_000].map(|size| {
            let block = raw::malloc(size);
            block.write_bytes(1, size);
            block
        });
        let grown = raw::realloc(blocks[1], 3000);
        assert_eq!(grown.add(99).read(), 1);
        for block in [blocks[0], grown, blocks[2], blocks[3], blocks[4]] {
            raw::free(block);
        }
        let zeroed = raw::alloc_zeroed(20_000, 64);
        assert!((0..20_000).all(|at| zeroed.add(at).read() == 0));
        raw::free_sized(zeroed, 20_000, 64);
        raw::free(LEFT_BEHIND.swap(raw::malloc(500), Ordering::Relaxed));
        let key = LATE_KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
        libc::pthread_setspecific(key, raw::malloc(64).cast());
    }
}

#[test]
fn destructors_that_run_after_the_allocators_own_allocate_and_free() {
    alone("destructors_that_run_after_the_allocators_own_allocate_and_free", || {
        let mut key = 0;
        // SAFETY: the destructor has the right type and the key stays.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(late)) }, 0);
        LATE_KEY.store(key as usize, Ordering::Relaxed);
        let run = |threads: usize| {
            for _ in 0..threads {
                let thread = std::thread::spawn(move || {
                    // SAFETY: the destructor frees the value.
                    unsafe { libc::pthread_setspecific(key, raw::malloc(64).cast()) };
                    AT_THE_END.with_borrow_mut(|slot| *slot = Some(Allocates(vec![1; 10])));
                });
                thread.join().unwrap();
            }
        };
        run(20);
        assert!(LATE_CALLS.load(Ordering::Relaxed) >= 2 * 20, "in more than one round");
        let (before, calls) = (stats(), LATE_CALLS.load(Ordering::Relaxed));
        run(200);
        let after = stats();
        assert_eq!(after.threads, before.threads, "no thread got a second cache");
        // The value of the last round of each thread, which nobody destroys, is 64 bytes.
        assert!(after.live <= before.live + 200 * 64 + 4096, "{before:?} {after:?}");
        assert!(LATE_CALLS.load(Ordering::Relaxed) >= calls + 400);
    });
}

#[test]
fn statistics_count_the_threads_that_have_a_cache() {
    alone_in_tiers("statistics_count_the_threads_that_have_a_cache", || {
        let before = stats().threads;
        let (begun, go_on) = (Barrier::new(6), Barrier::new(6));
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    drop(vec![1; 100]);
                    begun.wait();
                    go_on.wait();
                });
            }
            begun.wait();
            assert_eq!(stats().threads, before + 5);
            go_on.wait();
        });
        wait_until_threads_are(before);
    });
}

#[test]
fn threads_work_on_when_their_ends_are_not_told_any_more() {
    alone_in_tiers("threads_work_on_when_their_ends_are_not_told_any_more", || {
        threads_come_and_go(16);
        let before = stats().threads;
        std::thread::spawn(|| {
            drop(short_life(1));
            tiermalloc::forget_threads();
            drop(short_life(2));
        })
        .join()
        .unwrap();
        // Where the word is in the key, every thread begins anew when the key goes.
        let stranded = if cfg!(feature = "dynamic-tls") { stats().threads - before } else { 1 };
        assert_eq!(stats().threads, before + stranded, "its cache stays with it");
        threads_come_and_go(16);
        assert_eq!(stats().threads, before + stranded, "later threads are told of again");
    });
}

#[test]
fn preparing_again_changes_nothing() {
    let block = raw::malloc(100);
    for _ in 0..3 {
        tiermalloc::prepare_for_fork();
        tiermalloc::prepare_thread_word();
        tiermalloc::verify();
    }
    // SAFETY: live, and not used any more.
    unsafe { raw::free(block) };
    let next = raw::malloc(100);
    if tiermalloc::config().pool == tiermalloc::Pool::Tiered {
        assert_eq!(next, block, "the thread has the cache that it had");
    }
    // SAFETY: as above.
    unsafe { raw::free(next) };
}

/// A thread that caches some objects of 500 bytes, and ends.
fn cache_a_little() -> usize {
    std::thread::spawn(|| {
        let blocks = [(); 40].map(|()| raw::malloc(500));
        // SAFETY: live, and not used any more.
        blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
        // Whatever their order: the same ones have the same first one.
        blocks.into_iter().map(|block| block as usize).min().unwrap()
    })
    .join()
    .unwrap()
}

/// Bytes in the caches of threads and in those that wait for one.
fn cached() -> usize {
    let stats = stats();
    stats.thread_caches + stats.parked_caches
}

#[test]
fn what_a_thread_has_cached_serves_the_next_one_until_somebody_trims() {
    alone_in_tiers("what_a_thread_has_cached_serves_the_next_one_until_somebody_trims", || {
        // Bins grow for a while, those for what the standard library allocates for a thread as well.
        for _ in 0..5 {
            cache_a_little();
            wait_until_threads_are(2);
        }
        let most = cached();
        assert!(most >= 40 * 500, "{:?}", stats());
        let first = cache_a_little();
        for _ in 0..20 {
            assert_eq!(cache_a_little(), first, "the very objects");
            wait_until_threads_are(2);
            assert!(cached() <= most + 16 * 1024, "{most} {:?}", stats());
        }
        let before = cached();
        trim(0);
        // The harness's own thread, which sleeps, keeps what it has.
        assert!(cached() + 40 * 500 <= before, "{before} {:?}", stats());
    });
}

/// Four threads at once, each with what it is known by and a fresh object that it frees, or finds free.
fn four() -> Vec<(usize, usize)> {
    let together = std::sync::Arc::new(Barrier::new(4));
    let one = |_| {
        let together = together.clone();
        std::thread::spawn(move || {
            together.wait();
            let object = raw::malloc(200);
            // SAFETY: live, and not used any more.
            unsafe { raw::free(object) };
            together.wait();
            // SAFETY: the function has no conditions.
            (unsafe { libc::pthread_self() } as usize, object as usize)
        })
    };
    let threads: Vec<_> = (0..4).map(one).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn a_thread_in_the_place_of_an_ended_one_gets_what_that_one_had() {
    alone_in_tiers("a_thread_in_the_place_of_an_ended_one_gets_what_that_one_had", || {
        let mut before = four();
        let mut same = 0;
        for _ in 0..20 {
            wait_until_threads_are(2);
            let now = four();
            for (thread, object) in &now {
                if let Some((_, had)) = before.iter().find(|(other, _)| other == thread) {
                    assert_eq!(object, had, "{before:x?} {now:x?}");
                    same += 1;
                }
            }
            before = now;
        }
        // Where the C library does not use stacks again, there is nothing to be seen.
        assert!(same > 0 || cfg!(not(target_env = "gnu")), "{before:?}");
    });
}

#[test]
fn a_thread_with_much_leaves_nothing_behind() {
    alone_in_tiers("a_thread_with_much_leaves_nothing_behind", || {
        cache_a_little();
        wait_until_threads_are(2);
        let before = cached();
        // Much in the bins, and much room.
        for blocks in [900, 3000] {
            std::thread::spawn(move || {
                let blocks: Vec<*mut u8> = (0..blocks).map(|_| raw::malloc(1000)).collect();
                // SAFETY: live, and not used any more.
                blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
                assert!(cached() > 600_000, "{:?}", stats());
            })
            .join()
            .unwrap();
            wait_until_threads_are(2);
            assert!(cached() <= before + 4096, "{before} {:?}", stats());
        }
    });
}

#[test]
fn a_child_of_a_fork_takes_over_what_waits_for_threads() {
    alone_in_tiers("a_child_of_a_fork_takes_over_what_waits_for_threads", || {
        let first = cache_a_little();
        wait_until_threads_are(2);
        // SAFETY: the child leaves by `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let same = cache_a_little() == first;
                trim(0);
                // SAFETY: ends the child, and nothing else.
                unsafe { libc::_exit(if same { 0 } else { 1 }) };
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    });
}
