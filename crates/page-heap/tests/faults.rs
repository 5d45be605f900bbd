//! A source that fails at every possible point in turn: no operation loses memory, panics or corrupts.
//!
//! The model checks everything after each step (`support/model.rs`); when a step meets one refusal, not
//! a page may be lost.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::arena::{Arena, PAGE, Refusals};
use support::model::{SMALL_LEAF, SMALL_ROOT, Step, with_model};

/// Every operation, each in more than one situation.
fn script() -> Vec<Step> {
    use Step::*;
    vec![
        AllocObjects(0), // 512 objects: free bits outside the record
        AllocObjects(207),
        TakeObjects(0, 100),
        AllocLarge { pages: 3, align: 1 },
        AllocLarge { pages: 40, align: 16 },
        AllocHuge { bytes: 32 * PAGE, align: 1 },
        AllocHuge { bytes: 37 * PAGE, align: 32 * PAGE },
        AllocLarge { pages: 140, align: 1 }, // more than a step
        Free(2),
        AllocObjects(64), // 1,024 objects of 8 bytes
        Resize(0, 20),
        Resize(1, 50),
        Resize(2, 90),
        Resize(2, 30),
        PutObjects(0, 50),
        Misuse(12_345),
        AllocLarge { pages: 9, align: 8 },
        Free(4),
        ReleasePages(10),
        AllocHuge { bytes: 50 * PAGE, align: 64 * PAGE },
        Free(3),
        PassTime(1000),
        Free(1),
        AllocLarge { pages: 150, align: 64 },
        ReleaseSome(20),
        ReleaseDownToWorth(9),
        ReleaseDownTo(5),
        Free(0),
        UnmapFree,
        AllocLarge { pages: 2, align: 1 },
        AllocHuge { bytes: 34 * PAGE, align: 1 },
        Resize(3, 120),
        Free(1),
        ReleasePages(usize::MAX),
        AllocObjects(150),
        UnmapFree,
        AllocLarge { pages: 33, align: 32 },
        AllocGuarded { bytes: 20 * PAGE, align: 1 },
        AllocGuarded { bytes: 5 * PAGE + 1, align: 16 * PAGE },
        Resize(7, 10),
        Free(8),
        Free(7),
        Free(6),
        Free(5),
    ]
}

/// Runs the script with the calls refused for which `refused` says so, until none is reached.
fn fails_at_every_call(os_page: usize, roomy: bool, refused: impl Fn(usize) -> Refusals) {
    let mut calls = 0;
    for seed in [1, 0x1234_5678_9abc_def1] {
        for n in 0.. {
            let arena = Arena::new(2048, os_page, seed);
            let mut all = false;
            with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, roomy, |model| {
                arena.refuse(refused(n));
                script().iter().for_each(|step| model.step(step));
                all = arena.calls() <= n;
                // The source is well again, and nothing is missing.
                model.finish();
            });
            calls += 1;
            if all {
                break;
            }
        }
    }
    assert!(calls > 30, "{calls} points of failure: the script is not what it was");
}

#[test]
fn each_call_of_the_source_fails_once() {
    for os_page in [4096, 65536] {
        fails_at_every_call(os_page, true, |n| Refusals::Calls(n..n + 1));
    }
}

#[test]
fn each_call_of_the_source_fails_once_leaves_of_the_map_included() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..n + 1));
}

#[test]
fn three_calls_in_a_row_fail() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..n + 3));
}

#[test]
fn every_call_from_the_nth_on_fails_until_the_source_recovers() {
    fails_at_every_call(4096, false, |n| Refusals::Calls(n..usize::MAX));
}
