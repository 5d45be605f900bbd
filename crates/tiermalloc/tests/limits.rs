//! What the configuration bounds is bounded: caches, what goes back and how fast, the whole heap.

mod support;

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use support::{Random, configured, resident};
use tiermalloc::{raw, stats, trim};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Threads that allocate, hand over and free at random, and stop now and then, all at once. Then the caches
/// of all of them hold no more than `total` bytes; and no more than `thread` bytes each.
fn budget_is_obeyed(test: &str, total: usize, thread: usize) {
    const THREADS: usize = 16;
    const ROUNDS: usize = 6;
    let conf = format!("cache_total={total},cache_thread={thread},background=off");
    configured(&conf, test, || {
        let together = Barrier::new(THREADS + 1);
        let shared = Mutex::new(Vec::<usize>::with_capacity(1 << 20));
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (together, shared) = (&together, &shared);
                scope.spawn(move || {
                    let mut random = Random::new(seed as u64);
                    let mut mine = Vec::with_capacity(100_000);
                    for _ in 0..ROUNDS {
                        for _ in 0..6000 {
                            mine.push(raw::malloc(random.size(200 * KIB)) as usize);
                            if random.below(2) == 0 {
                                let block = mine.swap_remove(random.below(mine.len()));
                                // SAFETY: live, and not used any more.
                                unsafe { raw::free(block as *mut u8) };
                            }
                        }
                        // Half of what it has goes to others, and what others have left is freed.
                        let mut all = shared.lock().unwrap();
                        let theirs: Vec<usize> = all.drain(..).collect();
                        all.extend(mine.drain(mine.len() / 2..));
                        drop(all);
                        // SAFETY: as above.
                        theirs.iter().for_each(|&block| unsafe { raw::free(block as *mut u8) });
                        together.wait();
                        together.wait();
                    }
                    // SAFETY: as above.
                    mine.drain(..).for_each(|block| unsafe { raw::free(block as *mut u8) });
                });
            }
            for round in 0..ROUNDS {
                together.wait();
                let now = stats();
                let held = now.thread_caches + now.transfer_caches;
                // Whoever stored a batch at the same time as others saw the same room.
                let slack = if total == 0 { 0 } else { THREADS * 16 * KIB };
                assert!(held <= total + slack, "round {round}: {held} of {total}: {now:?}");
                let most = (THREADS + HARNESS) * thread;
                assert!(now.thread_caches <= most, "round {round}: {now:?}");
                if total >= 8 * MIB && thread >= MIB {
                    assert!(held > total / 8, "it is used: {now:?}");
                }
                together.wait();
            }
        });
    });
}

#[test]
fn without_any_cache_every_object_goes_past_the_bins() {
    budget_is_obeyed("without_any_cache_every_object_goes_past_the_bins", 0, 0);
}

#[test]
fn without_caches_of_threads_there_may_be_others() {
    budget_is_obeyed("without_caches_of_threads_there_may_be_others", 8 * MIB, 0);
}

#[test]
fn a_total_of_nothing_is_nothing_for_each() {
    budget_is_obeyed("a_total_of_nothing_is_nothing_for_each", 0, 4 * MIB);
}

#[test]
fn a_budget_of_4_kib_is_obeyed() {
    budget_is_obeyed("a_budget_of_4_kib_is_obeyed", 4 * KIB, 4 * KIB);
}

#[test]
fn a_thread_keeps_to_its_4_kib() {
    budget_is_obeyed("a_thread_keeps_to_its_4_kib", 64 * MIB, 4 * KIB);
}

#[test]
fn a_budget_of_1_mib_is_obeyed() {
    budget_is_obeyed("a_budget_of_1_mib_is_obeyed", MIB, 64 * KIB);
}

#[test]
fn a_budget_of_8_mib_is_obeyed_and_used() {
    budget_is_obeyed("a_budget_of_8_mib_is_obeyed_and_used", 8 * MIB, 4 * MIB);
}

/// Frees 48 MiB in blocks of whole pages that stay apart, and returns what keeps them apart.
fn leave_free() -> Vec<usize> {
    let blocks: Vec<usize> = (0..96).map(|_| raw::malloc(MIB / 2) as usize).collect();
    // SAFETY: live, and as long as that.
    blocks.iter().for_each(|&block| unsafe { (block as *mut u8).write_bytes(1, MIB / 2) });
    let (freed, kept): (Vec<_>, Vec<_>) = blocks.iter().enumerate().partition(|(n, _)| n % 8 != 0);
    // SAFETY: live, and not used any more.
    freed.into_iter().for_each(|(_, &block)| unsafe { raw::free(block as *mut u8) });
    kept.into_iter().map(|(_, &block)| block).collect()
}

/// What goes back in time goes back, but in no stretch of it more than the rate allows and a second's worth.
fn rate_is_obeyed(test: &str, rate: usize, others: &str) {
    let conf = format!("release_rate={rate},release_delay=20ms,{others}");
    configured(&conf, test, || {
        leave_free();
        // The kernel's figure: what is being given back at this moment is in none of ours.
        let (began, first) = (Instant::now(), resident());
        loop {
            // For looks at frees, where nobody else takes them.
            // SAFETY: freed at once.
            (0..40).for_each(|_| unsafe { raw::free(raw::malloc(300 * KIB)) });
            let gone = first.saturating_sub(resident());
            let elapsed = began.elapsed();
            // What went before the first figure was taken counts with the second's worth.
            let allowed = rate as f64 * (elapsed.as_secs_f64() + 1.0) + 1_000_000.0;
            assert!(gone as f64 <= allowed, "{gone} in {elapsed:?}");
            if gone > 2 * rate {
                break;
            }
            assert!(elapsed.as_secs() < 30, "{gone} only");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn the_rate_is_obeyed_by_looks_at_frees() {
    rate_is_obeyed("the_rate_is_obeyed_by_looks_at_frees", 2 * MIB, "background=off");
}

#[test]
fn the_rate_is_obeyed_in_the_background() {
    rate_is_obeyed("the_rate_is_obeyed_in_the_background", 4 * MIB, "background=automatic");
}

fn tasks() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux has it").count()
}

/// Waits until so many threads are there.
fn wait_for_tasks(wanted: usize) {
    let began = Instant::now();
    while tasks() != wanted {
        assert!(began.elapsed().as_secs() < 20, "{} threads, not {wanted}", tasks());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The harness has two: one that waits, one that runs the test.
const HARNESS: usize = 2;

#[test]
fn a_background_that_is_on_is_there_from_the_first_allocation_and_stays() {
    let test = "a_background_that_is_on_is_there_from_the_first_allocation_and_stays";
    configured("background=on,release_delay=10ms", test, || {
        assert_eq!(tasks(), HARNESS + 1);
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!(tasks(), HARNESS + 1, "after many looks that found nothing");
        let kept = leave_free();
        let began = Instant::now();
        while stats().free_dirty > 2 * MIB {
            assert!(began.elapsed().as_secs() < 20, "{:?}", stats());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(kept);
    });
}

#[test]
fn a_background_that_is_automatic_comes_and_goes() {
    let test = "a_background_that_is_automatic_comes_and_goes";
    configured("release_delay=10ms", test, || {
        wait_for_tasks(HARNESS);
        leave_free();
        // SAFETY: freed at once.
        (0..40).for_each(|_| unsafe { raw::free(raw::malloc(300 * KIB)) });
        let began = Instant::now();
        while stats().free_dirty > 2 * MIB {
            assert!(began.elapsed().as_secs() < 20, "{:?}", stats());
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for_tasks(HARNESS);
    });
}

#[test]
fn a_background_that_is_off_never_comes_and_a_long_delay_is_waited_for() {
    let test = "a_background_that_is_off_never_comes_and_a_long_delay_is_waited_for";
    configured("background=off,release_delay=1h", test, || {
        let dirty = {
            leave_free();
            stats().free_dirty
        };
        for _ in 0..200 {
            // SAFETY: freed at once.
            (0..40).for_each(|_| unsafe { raw::free(raw::malloc(300 * KIB)) });
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(tasks(), HARNESS);
        }
        assert!(stats().free_dirty + MIB > dirty, "{} of {dirty}", stats().free_dirty);
        assert!(trim(0) > 32 * MIB, "what is asked for goes at once");
    });
}

#[test]
fn collections_are_told_of_the_hard_limit_and_keep_what_they_have() {
    let test = "collections_are_told_of_the_hard_limit_and_keep_what_they_have";
    configured("hard_limit=64MiB", test, || {
        let mut words: Vec<u64> = Vec::new();
        let mut n = 0u64;
        while words.len() < words.capacity() || words.try_reserve(words.len().max(4)).is_ok() {
            words.push(n);
            n += 1;
            assert!(words.len() * 8 <= 64 * MIB);
        }
        assert!(words.len() * 8 >= 16 * MIB, "{}", words.len());
        assert!(words.iter().copied().eq(0..n));
        assert!(words.try_reserve_exact(64 * MIB / 8).is_err());
        drop(words);
        assert!(Vec::<u8>::new().try_reserve_exact(60 * MIB).is_ok());
        let before = tiermalloc::set_hard_limit(0);
        assert_eq!(before, 64 * MIB);
        assert!(Vec::<u8>::new().try_reserve_exact(100 * MIB).is_ok());
        assert_eq!(tiermalloc::set_hard_limit(32 * MIB), 0);
        assert_eq!(tiermalloc::set_soft_limit(2 * MIB), 0);
        assert_eq!(tiermalloc::set_soft_limit(0), 2 * MIB);
    });
}

#[test]
fn many_threads_trim_at_once_and_nothing_is_left() {
    configured("background=off", "many_threads_trim_at_once_and_nothing_is_left", || {
        let threads = (0..8).map(|seed| {
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..200 {
                    let blocks: Vec<usize> =
                        (0..50).map(|_| raw::malloc(random.size(MIB)) as usize).collect();
                    // SAFETY: live, and not used any more.
                    blocks.iter().for_each(|&block| unsafe { raw::free(block as *mut u8) });
                    match random.below(4) {
                        0 => drop(trim(random.below(4 * MIB))),
                        1 => tiermalloc::thread_idle(),
                        2 => tiermalloc::thread_busy(),
                        _ => {}
                    }
                }
            })
        });
        // Joined, each to its very end: what a thread leaves behind comes after its function.
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        trim(0);
        assert_eq!(stats().free_dirty, 0);
        assert_eq!(trim(0), 0, "and there is no more");
    });
}
