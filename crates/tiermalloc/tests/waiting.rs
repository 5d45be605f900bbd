//! Blocks of whole pages that wait for the next one of their length, as a program sees them.

mod support;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use support::{alone, alone_in_tiers};
use tiermalloc::{raw, stats};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn filled(size: usize, byte: u8) -> *mut u8 {
    let block = raw::malloc(size);
    assert!(!block.is_null());
    // SAFETY: just allocated.
    unsafe { block.write_bytes(byte, raw::usable_size(block)) };
    block
}

fn free(block: *mut u8) {
    // SAFETY: live, and not used any more.
    unsafe { raw::free(block) };
}

#[test]
fn the_next_of_about_its_length_is_the_same_and_clean_where_it_has_to_be() {
    alone_in_tiers("the_next_of_about_its_length_is_the_same_and_clean_where_it_has_to_be", || {
        let block = filled(600 * KIB, 7);
        free(block);
        let again = raw::malloc(550 * KIB);
        assert_eq!(again, block);
        // SAFETY: live.
        assert!(unsafe { raw::usable_size(again) } >= 550 * KIB);
        free(again);
        let zero = raw::alloc_zeroed(590 * KIB, 16);
        assert_eq!(zero, block, "of the thread's own");
        // SAFETY: live, and as long as that.
        let bytes = unsafe { core::slice::from_raw_parts(zero, 590 * KIB) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        // SAFETY: live, and not used by its old address if it moves.
        let moved = unsafe { raw::realloc(zero, 1500 * KIB) };
        // SAFETY: as above.
        assert!(unsafe { core::slice::from_raw_parts(moved, 590 * KIB) }.iter().all(|&b| b == 0));
        free(moved);
        let far = raw::alloc(600 * KIB, 64 * KIB);
        assert_eq!(far as usize % (64 * KIB), 0);
        free(far);
    });
}

/// Threads that change and clear blocks of each other's, beside fresh spans of objects: what is to be zero is, and what
/// somebody has written stays.
#[test]
fn nobody_gets_what_somebody_has_left() {
    for shards in ["shards=1", "shards=4"] {
        let test = "nobody_gets_what_somebody_has_left";
        support::alone_with(&[("TIERMALLOC_CONF", shards)], test, || {
            std::thread::scope(|scope| {
                for thread in 0..6u8 {
                    scope.spawn(move || {
                        let mut live: Vec<(*mut u8, usize)> = Vec::new();
                        for round in 0..1500usize {
                            let size = (270 + (round * 37 + thread as usize * 101) % 1500) * KIB;
                            let block = raw::malloc(size);
                            // SAFETY: just allocated.
                            unsafe {
                                block.write_bytes(thread + 1, 8 * KIB);
                                block.add(size - 1).write(thread + 1);
                            }
                            live.push((block, size));
                            let objects: Vec<_> =
                                (0..40).map(|n| raw::alloc_zeroed(200 + n * 97, 16)).collect();
                            for (n, &object) in objects.iter().enumerate() {
                                // SAFETY: live, and as long as that.
                                let bytes =
                                    unsafe { core::slice::from_raw_parts(object, 200 + n * 97) };
                                assert!(bytes.iter().all(|&byte| byte == 0), "calloc");
                            }
                            objects.into_iter().for_each(free);
                            if live.len() > 5 {
                                let (block, size) = live.swap_remove(round % live.len());
                                // SAFETY: live.
                                let ends = unsafe { (block.read(), block.add(size - 1).read()) };
                                assert_eq!(ends, (thread + 1, thread + 1));
                                free(block);
                            }
                        }
                        live.into_iter().for_each(|(block, _)| free(block));
                    });
                }
            });
        });
    }
}

/// However few each of many sleeping threads has left, it goes back.
#[test]
fn what_sleeping_threads_have_left_goes_back() {
    alone("what_sleeping_threads_have_left_goes_back", || {
        const THREADS: usize = 12;
        let (freed, over) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let blocks = [1900 * KIB, 1800 * KIB].map(|size| filled(size, 1));
                    blocks.into_iter().for_each(free);
                    freed.wait();
                    over.wait();
                });
            }
            freed.wait();
            let begin = Instant::now();
            // `free_dirty` counts what waits.
            while stats().free_dirty > 8 * MIB && begin.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(100));
            }
            let left = stats().free_dirty;
            over.wait();
            assert!(left <= 8 * MIB, "{left}");
        });
    });
}
