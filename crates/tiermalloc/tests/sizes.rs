//! Which road a size takes, and what alignment it gets.

mod support;

use std::alloc::{GlobalAlloc, Layout};

use support::{alone, alone_in_tiers, resident};
use tiermalloc::{Pool, Stats, TierMalloc, raw, stats, trim};
use tiermalloc_size_class::{MAX_SIZE, PAGE_SIZE, by_size, class_of};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const MIB: usize = 1 << 20;

/// What passes through thread caches, transfer caches and the spans of the central cache.
fn of_the_caches(stats: Stats) -> (usize, usize, usize) {
    (stats.thread_caches, stats.transfer_caches, stats.span_free)
}

/// Whether the OS has anything mapped at an address.
fn is_mapped(address: usize) -> bool {
    let mut resident = 0u8;
    // SAFETY: mincore looks at the page table only; one page has one byte of answer.
    unsafe { libc::mincore((address & !4095) as *mut libc::c_void, 1, &raw mut resident) == 0 }
}

/// The contract: sizes above 256 KiB bypass thread and central cache and go to the page heap; the
/// biggest go straight to the OS.
#[test]
fn sizes_above_256_kib_bypass_the_caches_and_the_biggest_go_straight_to_the_os() {
    alone_in_tiers(
        "sizes_above_256_kib_bypass_the_caches_and_the_biggest_go_straight_to_the_os",
        || {
            // SAFETY: every pointer is used between its allocation and its end.
            unsafe {
                // The largest object of a class takes the road of the caches, once it is called for often.
                (0..128).for_each(|_| raw::free(raw::malloc(MAX_SIZE)));
                raw::free(raw::malloc(MAX_SIZE));
                trim(0);
                let before = stats();
                let block = raw::malloc(MAX_SIZE);
                raw::free(block);
                let after = stats();
                assert_eq!(
                    after.thread_caches,
                    before.thread_caches + MAX_SIZE,
                    "kept by its thread"
                );
                assert_eq!(after.live, before.live);

                // So that the one byte that `realloc` begins with comes from the bin and goes there.
                raw::free(raw::malloc(1));
                // One byte more goes to the page heap, through none of them, in any way it is asked for.
                for size in [MAX_SIZE + 1, MAX_SIZE + PAGE_SIZE, MIB, 20 * MIB, 63 * MIB] {
                    let before = stats();
                    let roads: [fn(usize) -> *mut u8; 4] = [
                        raw::malloc,
                        |size| raw::alloc(size, 8),
                        |size| raw::alloc_zeroed(size, 64),
                        |size| raw::realloc(raw::malloc(1), size),
                    ];
                    for road in roads {
                        let block = road(size);
                        assert!(!block.is_null());
                        let now = stats();
                        let pages = size.next_multiple_of(PAGE_SIZE);
                        if now.huge == 0 {
                            assert_eq!(now.live, before.live + pages, "whole pages: {size}");
                        }
                        raw::free(block);
                        let after = stats();
                        assert_eq!(after.live, before.live);
                        assert_eq!(of_the_caches(now), of_the_caches(before), "{size}");
                        assert_eq!(of_the_caches(after), of_the_caches(before), "{size}");
                    }
                }

                // From 64 MiB on a block is a mapping of its own, which goes when it is freed.
                for size in [64 * MIB, 64 * MIB + 1, 500 * MIB] {
                    let before = stats();
                    let block = raw::malloc(size);
                    let now = stats();
                    assert_eq!((now.huge_count, before.huge_count), (1, 0));
                    assert_eq!(now.huge, size.next_multiple_of(PAGE_SIZE));
                    assert_eq!(now.mapped, before.mapped + now.huge, "straight from the OS");
                    assert_eq!(of_the_caches(now), of_the_caches(before));
                    assert_eq!(
                        (now.free_dirty, now.free_clean),
                        (before.free_dirty, before.free_clean)
                    );
                    assert!(is_mapped(block as usize) && is_mapped(block as usize + size - 1));
                    raw::free(block);
                    assert!(!is_mapped(block as usize) && !is_mapped(block as usize + size - 1));
                    let mut after = stats();
                    assert_eq!(after.counts.huge_made, before.counts.huge_made + 1);
                    let returned = after.counts.huge_returned - before.counts.huge_returned;
                    assert_eq!(returned, size.next_multiple_of(PAGE_SIZE));
                    after.counts = before.counts;
                    assert_eq!(after, before, "and straight back to it");
                }
            }
        },
    );
}

#[test]
fn every_power_of_two_up_to_a_gibibyte_is_an_alignment() {
    for shift in 0..=30 {
        let align = 1usize << shift;
        for size in [1, 7, 24, 100, 4096, 10_000, 70_000, MAX_SIZE, MAX_SIZE + 1, 3 * MIB] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let mut blocks = Vec::new();
            for n in 0..3 {
                // SAFETY: the layout is not empty; the blocks are live until freed below.
                unsafe {
                    let block = match n {
                        0 => raw::alloc(size, align),
                        1 => TierMalloc::new().alloc(layout),
                        _ => TierMalloc::new().alloc_zeroed(layout),
                    };
                    assert!(!block.is_null(), "{size} at {align}");
                    assert_eq!(block as usize % align, 0, "{size} at {align}");
                    assert!(raw::usable_size(block) >= size);
                    assert!(n < 2 || (block.read() == 0 && block.add(size - 1).read() == 0));
                    block.write(n);
                    block.add(size - 1).write(n);
                    blocks.push(block);
                }
            }
            for (n, block) in blocks.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe {
                    assert_eq!(block.add(size - 1).read(), n as u8);
                    if n == 0 { raw::free(block) } else { TierMalloc::new().dealloc(block, layout) }
                }
            }
        }
    }
}

#[test]
fn a_large_alignment_costs_addresses_and_no_memory() {
    if support::is_emulated() {
        println!("skipped: an emulator's memory is not the program's");
        return;
    }
    alone("a_large_alignment_costs_addresses_and_no_memory", || {
        let (before, live) = (resident(), stats().live);
        let blocks: Vec<*mut u8> = (13..=30).map(|shift| raw::alloc(10_000, 1 << shift)).collect();
        for &block in &blocks {
            assert!(!block.is_null());
            // SAFETY: just allocated.
            unsafe { block.write_bytes(1, 10_000) };
        }
        assert!(resident() < before + 2 * MIB, "{} {before}", resident());
        // SAFETY: live, and not used any more.
        blocks.iter().for_each(|&block| unsafe { raw::free(block) });
        drop(blocks);
        assert_eq!(stats().live, live);
    });
}

/// G2: every road leads to the one class of a size and an alignment, so that a free that knows the size and one that
/// asks the page map agree. All sizes and alignments, not some; where memory is cleared or filled, those next to the
/// borders between classes.
#[test]
fn every_entry_point_serves_a_request_in_the_same_class() {
    if support::skipped_in(
        &[Pool::System, Pool::Guarded],
        "a block has the size that was asked for",
    ) {
        return;
    }
    let served = |road: &str, block: *mut u8, size: usize, align: usize| {
        assert!(!block.is_null(), "{road} {size} {align}");
        // SAFETY: the block is live, and freed here with its own size and alignment.
        unsafe {
            let class = class_of(size, align).map(|class| class.size());
            assert_eq!(Some(raw::usable_size(block)), class, "{road} {size} {align}");
            raw::free_sized(block, size, align);
        }
    };
    let borders: Vec<usize> =
        by_size().flat_map(|class| [class.size() - 1, class.size(), class.size() + 1]).collect();
    let borders = || borders.iter().copied().filter(|size| (1..=MAX_SIZE).contains(size));
    let fills = tiermalloc::config().pool == tiermalloc::Pool::Hardened;
    let all = || (1..=MAX_SIZE).filter(|size| !fills || size % 1021 == 0).chain(borders());
    for size in all() {
        served("malloc", raw::malloc(size), size, 16);
        let cached = raw::malloc_cached(size);
        if !cached.is_null() {
            served("malloc_cached", cached, size, 16);
        }
        // SAFETY: the block is live, and not used any more if it moves.
        let grown = unsafe { raw::realloc(raw::malloc(1), size) };
        served("realloc", grown, size, 16);
    }
    for align in (0..=13).map(|shift| 1 << shift) {
        assert!(align <= PAGE_SIZE && class_of(1, 2 * PAGE_SIZE).is_none());
        for size in all() {
            // Some of the largest sizes have no class that is aligned so.
            if class_of(size, align).is_some() {
                let layout = Layout::from_size_align(size, align).unwrap();
                served("alloc", raw::alloc(size, align), size, align);
                // SAFETY: the layout is not empty.
                served("GlobalAlloc", unsafe { TierMalloc::new().alloc(layout) }, size, align);
            }
        }
        for size in borders().filter(|&size| class_of(size, align).is_some()) {
            let layout = Layout::from_size_align(size, align).unwrap();
            served("alloc_zeroed", raw::alloc_zeroed(size, align), size, align);
            // SAFETY: as above.
            let zeroed = unsafe { TierMalloc::new().alloc_zeroed(layout) };
            served("GlobalAlloc, zeroed", zeroed, size, align);
            // SAFETY: the block has the layout, and is not used any more if it moves.
            let grown = unsafe {
                let one = Layout::from_size_align(1, align).unwrap();
                TierMalloc::new().realloc(TierMalloc::new().alloc(one), one, size)
            };
            served("GlobalAlloc, resized", grown, size, align);
        }
    }
}

#[test]
fn every_size_has_all_of_its_usable_bytes() {
    let mut sizes: Vec<usize> = by_size().flat_map(|c| [c.size() - 1, c.size()]).collect();
    sizes.extend([0, MAX_SIZE + 1, MIB - 1, MIB, 9 * MIB]);
    for size in sizes {
        let block = raw::malloc(size);
        assert!(!block.is_null() && block as usize % 16 == 0);
        // SAFETY: live until freed here.
        unsafe {
            let usable = raw::usable_size(block);
            assert!(usable >= size);
            block.write_bytes(0xa5, usable);
            raw::free(block);
        }
    }
}

#[test]
fn what_cannot_be_had_is_null_and_enomem_at_every_entry_point() {
    let absurd =
        [usize::MAX, usize::MAX - 4096, isize::MAX as usize + 1, isize::MAX as usize, 1 << 47];
    for size in absurd {
        for align in [1, 16, 4096, 1 << 20, 1 << 40] {
            type Road = fn(usize, usize) -> *mut u8;
            let roads: [(&str, Road); 3] = [
                ("malloc", |size, _| raw::malloc(size)),
                ("alloc", raw::alloc),
                ("alloc_zeroed", raw::alloc_zeroed),
            ];
            for (road, alloc) in roads {
                support::set_errno(0);
                assert!(alloc(size, align).is_null(), "{road} {size} {align}");
                assert_eq!(support::errno(), libc::ENOMEM, "{road} {size} {align}");
            }
        }
    }
    let absurd = Layout::from_size_align(isize::MAX as usize, 1).unwrap();
    // SAFETY: the layout is not empty.
    assert!(unsafe { TierMalloc::new().alloc(absurd) }.is_null());
    // And a normal one is served as before.
    assert_eq!(vec![1u8; 100].len(), 100);
}
