//! The hardened pool: what it sees, when, and what freed memory is like. Each test runs in a process of its
//! own, with the pool chosen by the environment.

mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use support::{alone_with, each_alone_with};
use tiermalloc::{Pool, TierMalloc, raw, stats, trim};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const HARDENED: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=hardened")];
const SMALL_QUARANTINE: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=hardened,quarantine=16KiB")];
const NO_QUARANTINE: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=hardened,quarantine=0")];

/// SIGABRT, and one line with these words.
fn aborts_with(bug: &str, output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{bug}: {}\n{text}", output.status);
    let said = text.lines().filter(|line| line.starts_with("tiermalloc: ")).collect::<Vec<_>>();
    assert!(matches!(said[..], [line] if line.contains(words)), "{bug}: {text}");
}

/// The end of a process that nobody has stopped, without looking back.
fn survived() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(77) }
}

#[test]
fn a_second_free_is_seen_at_once_wherever_the_object_is() {
    each_alone_with(
        HARDENED,
        "a_second_free_is_seen_at_once_wherever_the_object_is",
        &[
            ("in the quarantine", || {
                let block = raw::malloc(100);
                // SAFETY: none; the misuse is the point.
                unsafe {
                    raw::free(block);
                    raw::free(block);
                }
                survived();
            }),
            ("in its span", || {
                let (block, _other) = (raw::malloc(100), raw::malloc(100));
                // SAFETY: as above.
                unsafe {
                    raw::free(block);
                    trim(0);
                    raw::free(block);
                }
                survived();
            }),
            ("by another thread", || {
                let block = raw::malloc(100) as usize;
                // SAFETY: as above.
                let free = move || unsafe { raw::free(block as *mut u8) };
                std::thread::spawn(free).join().unwrap();
                free();
                survived();
            }),
        ],
        |bug, output| aborts_with(bug, output, "double free"),
    );
}

#[test]
fn a_write_to_freed_memory_is_seen_when_the_object_leaves_the_quarantine() {
    each_alone_with(
        SMALL_QUARANTINE,
        "a_write_to_freed_memory_is_seen_when_the_object_leaves_the_quarantine",
        &[("a byte", || {
            let others: Vec<*mut u8> = (0..5000).map(|_| raw::malloc(100)).collect();
            let block = raw::malloc(100);
            // SAFETY: none; the misuse is the point.
            unsafe {
                raw::free(block);
                block.add(77).write(1);
                // They push it out. Nobody takes anything meanwhile.
                others.into_iter().for_each(|other| raw::free(other));
            }
            survived();
        })],
        |bug, output| aborts_with(bug, output, "free memory was written to, 77 bytes behind"),
    );
}

#[test]
fn the_quarantine_keeps_to_its_bound_and_gives_up_its_memory() {
    const QUARANTINE: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=hardened,quarantine=1MiB")];
    alone_with(QUARANTINE, "the_quarantine_keeps_to_its_bound_and_gives_up_its_memory", || {
        assert_eq!(tiermalloc::config().pool, Pool::Hardened);
        let blocks: Vec<*mut u8> = (0..10_000).map(|_| raw::malloc(1000)).collect();
        let live = stats().live;
        // SAFETY: live, and not used any more.
        blocks.into_iter().for_each(|block| unsafe { raw::free(block) });
        let held = stats().quarantine;
        assert!((512 << 10..=1 << 20).contains(&held), "{held}");
        assert!(stats().live + 9_000_000 < live);
        trim(0);
        assert!(stats().quarantine < 64 << 10, "{}", stats().quarantine);
    });
}

#[test]
fn memory_that_was_used_before_is_zero_when_zero_is_asked_for() {
    alone_with(NO_QUARANTINE, "memory_that_was_used_before_is_zero_when_zero_is_asked_for", || {
        for size in [1, 16, 100, 1000, 5000, 70_000, 256 << 10, 1 << 20] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let mut seen = Vec::new();
            for round in 0..40 {
                // SAFETY: each block is used between its allocation and its end.
                unsafe {
                    let block = TierMalloc::new().alloc_zeroed(layout);
                    let bytes = std::slice::from_raw_parts(block, size);
                    assert!(bytes.iter().all(|&byte| byte == 0), "{size}, round {round}");
                    block.write_bytes(0x5a, size);
                    seen.push(block);
                    TierMalloc::new().dealloc(block, layout);
                }
            }
            seen.sort();
            seen.dedup();
            assert!(seen.len() < 40 || size > 256 << 10, "{size}: no memory was used again");
        }
    });
}

#[test]
fn who_frees_with_the_right_size_is_believed() {
    alone_with(NO_QUARANTINE, "who_frees_with_the_right_size_is_believed", || {
        for (size, align) in
            [(1, 16), (100, 16), (100, 64), (5000, 4096), (300_000, 16), (9, 32768)]
        {
            for _ in 0..3 {
                let block = raw::alloc(size, align);
                // SAFETY: live, and not used any more.
                unsafe { raw::free_claimed(block, size, align) };
            }
        }
        // SAFETY: nothing is nothing, however large.
        unsafe { raw::free_claimed(std::ptr::null_mut(), 77, 8) };
    });
}

#[test]
fn a_wrong_size_or_alignment_is_seen_when_it_is_claimed() {
    fn claim(made: (usize, usize), claimed: (usize, usize)) -> ! {
        let block = raw::alloc(made.0, made.1);
        // SAFETY: none; the misuse is the point.
        unsafe { raw::free_claimed(block, claimed.0, claimed.1) };
        survived();
    }
    each_alone_with(
        HARDENED,
        "a_wrong_size_or_alignment_is_seen_when_it_is_claimed",
        &[
            ("too large", || claim((100, 16), (1000, 16))),
            ("too small", || claim((1000, 16), (100, 16))),
            ("pages as an object", || claim((1 << 20, 16), (100, 16))),
            ("an object as pages", || claim((100, 16), (1 << 20, 16))),
            ("alignment", || {
                let blocks: Vec<*mut u8> = (0..4).map(|_| raw::malloc(300_000)).collect();
                let odd = blocks.iter().find(|&&block| block as usize % (1 << 20) != 0).unwrap();
                // SAFETY: none; the misuse is the point.
                unsafe { raw::free_claimed(*odd, 300_000, 1 << 20) };
                survived();
            }),
        ],
        |bug, output| {
            let words = match bug {
                "alignment" => "freed as aligned to 1048576 bytes, which it is not",
                _ => ", but allocated as ",
            };
            aborts_with(bug, output, words);
        },
    );
}

#[test]
fn objects_pass_between_threads_and_forks_as_ever() {
    alone_with(HARDENED, "objects_pass_between_threads_and_forks_as_ever", || {
        for round in 0..20 {
            let made: Vec<Vec<u8>> = (0..500).map(|n| vec![n as u8; n * 3 + round]).collect();
            let thread = std::thread::spawn(move || {
                // SAFETY: the child only allocates, frees and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    drop(made);
                    drop((0..500).map(|n| vec![1u8; n * 7]).collect::<Vec<_>>());
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
                let mut status = 0;
                // SAFETY: the child is ours.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
                made
            });
            drop((0..2000).map(|n| vec![2u8; n % 300]).collect::<Vec<_>>());
            assert!(
                thread
                    .join()
                    .unwrap()
                    .iter()
                    .enumerate()
                    .all(|(n, v)| v.iter().all(|&b| b == n as u8))
            );
        }
    });
}
