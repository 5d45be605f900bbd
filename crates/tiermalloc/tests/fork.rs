//! Forks in the middle of everything.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use support::blocks::{Block, Blocks};
use support::{Random, alone_in_tiers};
use tiermalloc::{raw, stats};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

/// One fork at a time: forks of several tests at once show nothing more and take longer.
static FORKS: Mutex<()> = Mutex::new(());

/// Runs `work` in a child process and waits for its end.
fn in_a_child(work: impl FnOnce()) {
    // SAFETY: the child of a process with threads may do what the tests here show that it may.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        // SAFETY: alarm only sets a timer: a child that hangs dies of it.
        unsafe { libc::alarm(20) };
        work();
        // SAFETY: ends the child without what belongs to the parent's harness.
        unsafe { libc::_exit(42) };
    }
    let began = Instant::now();
    let mut status = 0;
    // SAFETY: `status` is writable.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the child hangs");
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "status {status:#x}");
}

/// Allocates, resizes and frees by every door, at random.
fn load(random: &mut Random, blocks: &mut Blocks, steps: usize) {
    for _ in 0..steps {
        let size = random.size(600_000);
        let pick = random.below(1 << 20);
        match random.below(8) {
            0 | 1 => blocks.add(Block::malloc(size)),
            2 => blocks.add(Block::rust(size, 1 << random.below(8))),
            3 => {
                if let Some(block) = blocks.take(pick) {
                    blocks.add(block.realloc(size));
                }
            }
            _ => {
                if let Some(block) = blocks.take(pick) {
                    block.free(pick % 2 == 0);
                }
            }
        }
    }
}

/// What a child does that is more than `exec`.
fn child_life(seed: u64) {
    let threads: Vec<_> = (0..2)
        .map(|n| {
            std::thread::spawn(move || {
                let kept: Vec<Vec<u8>> = (0..200).map(|size| vec![n as u8; size * 10]).collect();
                assert!(kept.iter().flatten().all(|&byte| byte == n as u8));
                kept
            })
        })
        .collect();
    let mut random = Random::new(seed);
    let strings: Vec<String> = (0..300).map(|n| format!("{n} {}", random.next())).collect();
    let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(strings.iter().enumerate().all(|(n, text)| text.starts_with(&n.to_string())));
    drop((kept, strings));
}

/// Runs `meanwhile` while four threads allocate and free without pause, blocks of each other among
/// them. They hold nothing of the harness's, and no lock of `support::blocks` while a fork happens.
fn under_load(meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut kept: Vec<*mut u8> = Vec::with_capacity(512);
                while !stop.load(Ordering::Relaxed) {
                    // Two of them keep the central cache busy, two the page heap.
                    let size = random.size(400_000) + if seed % 2 == 0 { 0 } else { 300_000 };
                    let block = if seed % 2 == 0 && random.below(3) == 0 {
                        raw::alloc_zeroed(size, 64)
                    } else {
                        raw::malloc(size)
                    };
                    assert!(!block.is_null());
                    // SAFETY: just allocated; what is freed is live and not used any more.
                    unsafe {
                        block.write(1);
                        if kept.len() == 512 {
                            kept.drain(..400).for_each(|block| raw::free(block));
                        }
                    }
                    kept.push(block);
                }
                // SAFETY: as above.
                kept.into_iter().for_each(|block| unsafe { raw::free(block) });
            });
        }
        meanwhile();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_of_a_busy_process_allocates_runs_threads_and_forks_again() {
    let _one = FORKS.lock();
    // What the parent holds, the child finds, and may free.
    let held: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 1 + usize::from(n) * 1000]).collect();
    under_load(|| {
        for seed in 0..30 {
            in_a_child(|| {
                let held = held.clone();
                child_life(seed);
                assert!(held.iter().enumerate().all(|(n, bytes)| bytes[0] == n as u8));
                if seed % 4 == 0 {
                    in_a_child(|| child_life(seed + 1000));
                }
                drop(held);
            });
        }
    });
}

#[test]
fn no_lock_of_a_class_stays_taken_in_a_child() {
    let _one = FORKS.lock();
    // Few objects of these sizes make a batch, so that these threads are at the locks of two classes most of
    // their time.
    let (stop, sizes) = (AtomicBool::new(false), [30_000, 60_000]);
    let churn = |rounds: usize| {
        for _ in 0..rounds {
            for size in sizes {
                let blocks = [(); 40].map(|()| raw::malloc(size));
                // SAFETY: live, and not used any more.
                blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    churn(1);
                }
            });
        }
        for _ in 0..120 {
            in_a_child(|| churn(2));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_fork_storm_from_several_threads_ends() {
    let _one = FORKS.lock();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for n in 0..25 {
                    let mine = vec![seed as u8; 5000];
                    in_a_child(|| {
                        assert!(mine.iter().all(|&byte| byte == seed as u8));
                        let more: Vec<String> = (0..100).map(|n| n.to_string()).collect();
                        assert_eq!(more[n], n.to_string());
                    });
                }
            });
        }
    });
}

#[test]
fn the_parent_goes_on_as_if_nothing_had_happened() {
    let _one = FORKS.lock();
    let mut blocks = Blocks::default();
    let mut random = Random::new(5);
    for _ in 0..20 {
        load(&mut random, &mut blocks, 500);
        in_a_child(|| child_life(7));
    }
}

/// Threads with full caches exist in the parent and not in the child: what they had cached is used
/// again there, and what they had in use stays as it is.
#[test]
fn a_child_gets_back_what_the_other_threads_had_cached() {
    alone_in_tiers("a_child_gets_back_what_the_other_threads_had_cached", || {
        let (ready, done) = (Barrier::new(5), Barrier::new(5));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (ready, done) = (&ready, &done);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let all: Vec<Vec<u8>> =
                        (0..2000).map(|_| vec![1; random.size(20_000)]).collect();
                    let kept: Vec<Vec<u8>> = all.into_iter().step_by(10).collect();
                    ready.wait();
                    done.wait();
                    assert!(kept.iter().flatten().all(|&byte| byte == 1));
                });
            }
            ready.wait();
            let before = stats();
            assert!(before.thread_caches > 1 << 20, "there is something to get back: {before:?}");
            in_a_child(|| {
                assert_eq!(stats().threads, 1);
                let blocks: [*mut u8; 64] = std::array::from_fn(|n| raw::malloc(200_000 + n * 900));
                // SAFETY: live, and not used any more.
                blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
                let after = stats();
                let lost = after.live.saturating_sub(before.live);
                assert!(lost < 64 * 1024, "{lost} of {} lost: {after:?}", before.thread_caches);
                tiermalloc::trim(0);
                let trimmed = stats();
                assert_eq!((trimmed.thread_caches, trimmed.transfer_caches), (0, 0));
            });
            done.wait();
        });
    });
}

/// Threads are cut off at every point of what an allocator does: the child finds no object twice.
#[test]
fn nothing_is_handed_out_twice_in_a_child_that_takes_over_from_threads_cut_off_anywhere() {
    let _one = FORKS.lock();
    let held: Vec<Block> = (0..500).map(|n| Block::malloc(n * 40 + 1)).collect();
    under_load(|| {
        for seed in 0..30 {
            in_a_child(|| {
                let mut blocks = Blocks::default();
                let mut random = Random::new(seed);
                load(&mut random, &mut blocks, 3000);
                drop(blocks);
            });
        }
    });
    held.into_iter().for_each(|block| block.free(true));
}

#[test]
fn a_child_gives_memory_back_too() {
    let _one = FORKS.lock();
    // So much free memory that somebody comes to give it back, in the parent and then in the child.
    let leave_much = || {
        let blocks: Vec<*mut u8> = (0..200).map(|_| raw::malloc(100_000)).collect();
        // SAFETY: live, and as long as that.
        blocks.iter().for_each(|&block| unsafe { block.write_bytes(1, 100_000) });
        // SAFETY: live, and not used any more.
        blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
    };
    leave_much();
    in_a_child(|| {
        leave_much();
        let began = std::time::Instant::now();
        while tiermalloc::stats().free_dirty > 4 << 20 {
            assert!(began.elapsed().as_secs() < 20, "{:?}", tiermalloc::stats());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
}
