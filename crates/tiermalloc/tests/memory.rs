//! What the process weighs, what the statistics say of it, and what it does when there is no more.

mod support;

use support::{Random, alone, alone_and_undisturbed, alone_in_tiers, errno, resident, set_errno};
use tiermalloc::{Pool, Stats, raw, stats, trim};
use tiermalloc_size_class::{MAX_SIZE, PAGE_SIZE};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const MIB: usize = 1 << 20;

/// Allocates `count` blocks of sizes as programs ask for them into `blocks`, which has room for them.
/// Returns the sum of their usable sizes.
fn take(blocks: &mut Vec<*mut u8>, count: usize, seed: u64, most: usize) -> usize {
    let mut random = Random::new(seed);
    let mut usable = 0;
    for _ in 0..count {
        let block = raw::malloc(random.size(most));
        // SAFETY: just allocated.
        unsafe {
            block.write_bytes(1, raw::usable_size(block));
            usable += raw::usable_size(block);
        }
        blocks.push(block);
    }
    usable
}

fn give_back(blocks: &mut Vec<*mut u8>) {
    // SAFETY: live, and not used any more.
    blocks.drain(..).for_each(|block| unsafe { raw::free(block) });
}

/// What every snapshot must satisfy.
fn check(stats: Stats) {
    let in_spans = stats.live - stats.huge + stats.thread_caches + stats.transfer_caches;
    let pages = in_spans + stats.span_free + stats.free_dirty + stats.free_clean;
    assert!(pages + stats.huge <= stats.mapped, "{stats:?}");
    assert!(stats.huge_count > 0 || stats.huge == 0, "{stats:?}");
}

#[test]
fn statistics_agree_with_what_the_program_holds() {
    alone_in_tiers("statistics_agree_with_what_the_program_holds", || {
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(20_000);
        let before = stats();
        check(before);
        let mut held = 0;
        for round in 0..5 {
            held += take(&mut blocks, 3000, round, 2 * MIB);
            let now = stats();
            check(now);
            assert_eq!(now.live - before.live, held, "round {round}");
        }
        let huge = raw::malloc(100 * MIB);
        let now = stats();
        check(now);
        assert_eq!((now.huge, now.huge_count), (100 * MIB, 1));
        assert_eq!(now.live - before.live, held + 100 * MIB);
        // SAFETY: live, and not used any more.
        unsafe { raw::free(huge) };
        give_back(&mut blocks);
        let after = stats();
        check(after);
        assert_eq!(after.live, before.live);
        assert!(after.thread_caches > before.thread_caches);
        assert!(after.thread_caches <= 16 * MIB, "a thread's share: {after:?}");
        trim(0);
        let trimmed = stats();
        check(trimmed);
        // The harness's own thread, which sleeps, keeps what it has.
        assert!(trimmed.thread_caches <= before.thread_caches, "{before:?} {trimmed:?}");
        assert_eq!(trimmed.transfer_caches, 0);
        assert_eq!((trimmed.live, trimmed.free_dirty), (before.live, 0), "{trimmed:?}");
    });
}

#[test]
fn trim_gives_memory_back_and_says_how_much() {
    if support::skipped_in(&[Pool::System], "the C library does not say how much") {
        return;
    }
    alone_and_undisturbed("trim_gives_memory_back_and_says_how_much", || {
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(100_000);
        trim(0);
        let before = resident();
        for most in [2000, MAX_SIZE] {
            while resident() < before + 60 * MIB {
                let seed = blocks.len() as u64;
                take(&mut blocks, 500, seed, most);
            }
            give_back(&mut blocks);
            let freed = resident();
            let dirty = stats().free_dirty;
            let gone = trim(0);
            assert_eq!(stats().free_dirty, 0);
            let now = resident();
            // The bookkeeping of this test, and what records of spans the heap keeps for the next time.
            assert!(now < before + 3 * MIB, "{before} {freed} {now} {:?}", stats());
            assert!(gone >= dirty, "{gone} {dirty}");
            // Guarded blocks have gone back when they were freed: nothing is left to go, and the figures of the system waver.
            println!("{most}: {before} {freed} {now} {gone}");
            assert!(freed.saturating_sub(now) <= gone + MIB, "{gone} {freed} {now}");
        }
    });
}

#[test]
fn trim_keeps_what_it_is_told_to_keep() {
    alone_and_undisturbed("trim_keeps_what_it_is_told_to_keep", || {
        if tiermalloc::config().pool != tiermalloc::Pool::Tiered {
            return;
        }
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(1000);
        for _ in 0..40 {
            let block = raw::malloc(400 * 1024);
            // SAFETY: just allocated.
            unsafe { block.write_bytes(1, 400 * 1024) };
            blocks.push(block);
        }
        // Blocks in between keep the free spans apart.
        let kept: Vec<*mut u8> = blocks.iter().copied().step_by(2).collect();
        // SAFETY: live, and not used any more.
        blocks.iter().skip(1).step_by(2).for_each(|&block| unsafe { raw::free(block) });
        trim(4 * MIB);
        let left = stats().free_dirty;
        assert!(left <= 4 * MIB && left > 2 * MIB, "{left}");
        trim(0);
        assert_eq!(stats().free_dirty, 0);
        // SAFETY: as above.
        kept.into_iter().for_each(|block| unsafe { raw::free(block) });
    });
}

#[test]
fn memory_is_used_again_and_not_taken_anew() {
    alone("memory_is_used_again_and_not_taken_anew", || {
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(20_000);
        take(&mut blocks, 5000, 1, MIB);
        let peak = stats().mapped;
        for round in 0..40 {
            give_back(&mut blocks);
            take(&mut blocks, 5000, 1 + round % 2, MIB);
        }
        let now = stats().mapped;
        // One more step at most, which is a quarter in whole MiB: for the largest blocks, between the others.
        assert!(now <= peak + (peak / 4).next_multiple_of(MIB), "{peak} {now}");
        give_back(&mut blocks);
    });
}

/// Calls every entry point in every of its ways that succeed.
fn all_that_succeeds() {
    let sizes = [0, 1, 24, 1000, 5000, 100_000, MAX_SIZE, MAX_SIZE + 1, 5 * MIB, 70 * MIB];
    // SAFETY: every pointer is used between its allocation and its end.
    unsafe {
        for size in sizes {
            raw::free(raw::malloc(size));
            raw::free(raw::alloc_zeroed(size, 16));
            let aligned = raw::alloc(size.max(1), 64 * 1024);
            assert!(!aligned.is_null());
            raw::free_sized(aligned, size.max(1), 64 * 1024);
            for to in sizes {
                let moved = raw::realloc(raw::malloc(size), to.max(1));
                assert!(!moved.is_null());
                raw::free_sized(moved, to.max(1), 16);
            }
            let many: [*mut u8; 200] = std::array::from_fn(|_| raw::malloc(size.min(100_000)));
            many.into_iter().for_each(|block| raw::free(block));
        }
        raw::free(std::ptr::null_mut());
    }
    stats();
    trim(0);
}

#[test]
fn what_succeeds_leaves_errno_alone() {
    let in_this_thread = || {
        // The first call of a thread makes its cache.
        set_errno(77);
        // SAFETY: freed at once.
        unsafe { raw::free(raw::malloc(10)) };
        assert_eq!(errno(), 77);
        all_that_succeeds();
        assert_eq!(errno(), 77);
    };
    in_this_thread();
    std::thread::spawn(in_this_thread).join().unwrap();
}

#[test]
fn a_process_that_runs_out_of_memory_keeps_what_it_has_and_goes_on_when_some_is_freed() {
    if support::skipped_in(&[Pool::System, Pool::Guarded], "addresses run out in ways of their own")
    {
        return;
    }
    if support::is_emulated() {
        println!("skipped: an emulator does not keep limits of address space");
        return;
    }
    alone(
        "a_process_that_runs_out_of_memory_keeps_what_it_has_and_goes_on_when_some_is_freed",
        || {
            const LIMIT: libc::rlim_t = 300 << 20;
            let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
            // SAFETY: `limit` is readable.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
            // Room for the addresses, from before there is none.
            let mut blocks: Vec<*mut u8> = Vec::with_capacity(500_000);
            for size in [MIB, 40_000, MAX_SIZE, 1000, 100 * MIB, 3000, 70 * MIB] {
                loop {
                    set_errno(0);
                    let block = raw::malloc(size);
                    if block.is_null() {
                        assert_eq!(errno(), libc::ENOMEM);
                        break;
                    }
                    assert!(blocks.len() < blocks.capacity(), "{size}: the limit does not limit");
                    // SAFETY: just allocated.
                    unsafe {
                        block.cast::<usize>().write(block as usize);
                        block.add(size - 8).cast::<usize>().write(block as usize);
                    }
                    blocks.push(block);
                }
                // Other sizes fail or are served, and whatever was there is intact.
                for &block in &blocks {
                    // SAFETY: live.
                    assert_eq!(unsafe { block.cast::<usize>().read() }, block as usize);
                }
                let held: usize = stats().live;
                assert!(held > 150 * MIB, "{size}: most of the limit can be used: {:?}", stats());
                give_back(&mut blocks);
                let again = raw::malloc(100 * MIB);
                assert!(!again.is_null(), "{size}: after {held} bytes were freed: {:?}", stats());
                // SAFETY: live, and not used any more.
                unsafe { raw::free(again) };
            }
        },
    );
}

#[test]
fn whole_pages_are_counted_as_whole_pages() {
    if support::skipped_in(
        &[Pool::System, Pool::Guarded],
        "a block has the size that was asked for",
    ) {
        return;
    }
    alone("whole_pages_are_counted_as_whole_pages", || {
        let before = stats();
        let block = raw::alloc(1, 2 * PAGE_SIZE);
        let now = stats();
        assert_eq!(now.live, before.live + PAGE_SIZE);
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
        assert_eq!(stats().live, before.live);
    });
}

#[test]
fn memory_goes_back_while_the_program_sleeps() {
    alone("memory_goes_back_while_the_program_sleeps", || {
        // Of whole pages, so that they are free pages at once, and so few that they are freed at once.
        let mut blocks: Vec<*mut u8> = (0..100).map(|_| raw::malloc(800_000)).collect();
        // SAFETY: live, and as long as that.
        blocks.iter().for_each(|&block| unsafe { block.write_bytes(1, 800_000) });
        give_back(&mut blocks);
        let began = std::time::Instant::now();
        // Nothing but a look now and then, which frees nothing.
        while stats().free_dirty > 4 * MIB {
            assert!(began.elapsed().as_secs() < 20, "{:?}", stats());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
}
