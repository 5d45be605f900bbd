//! Resizing: contents are kept over every kind of move, and where a block can stay it stays.

mod support;

use std::alloc::{GlobalAlloc, Layout};

use support::alone_in_tiers;
use tiermalloc::{Pool, TierMalloc, raw, stats};
use tiermalloc_size_class::{MAX_SIZE, by_size, class_of};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const MIB: usize = 1 << 20;

/// Small, medium and the largest objects of a class; whole pages; mappings of their own.
const SIZES: [usize; 10] =
    [1, 24, 1000, 9000, MAX_SIZE, MAX_SIZE + 1, 5 * MIB, 63 * MIB, 66 * MIB, 150 * MIB];

/// A word here and there up to `length`: 256 at the beginning, the last one, and one each 64 KiB.
fn places(length: usize) -> impl Iterator<Item = usize> {
    let dense = (0..256).map(|word| word * 8);
    let sparse = (0..length).step_by(64 * 1024);
    dense.chain(sparse).chain(length.checked_sub(8)).filter(move |at| at + 8 <= length)
}

/// # Safety
/// `pointer` is a live allocation of at least `length` bytes.
unsafe fn fill(pointer: *mut u8, length: usize) {
    for at in places(length) {
        // SAFETY: passed on to the caller.
        unsafe { pointer.add(at).cast::<usize>().write_unaligned(at ^ 0x5bd1_e995_0000_0000) };
    }
}

/// # Safety
/// As for `fill`.
unsafe fn check(pointer: *mut u8, filled: usize, length: usize) {
    for at in places(filled).filter(|at| at + 8 <= length) {
        // SAFETY: passed on to the caller.
        let word = unsafe { pointer.add(at).cast::<usize>().read_unaligned() };
        assert_eq!(word, at ^ 0x5bd1_e995_0000_0000, "{filled} -> {length}: word at {at}");
    }
}

#[test]
fn contents_survive_every_kind_of_move() {
    for from in SIZES {
        for to in SIZES {
            // SAFETY: every pointer is used between its allocation and its end.
            unsafe {
                let block = raw::malloc(from);
                fill(block, from);
                let moved = raw::realloc(block, to);
                assert!(!moved.is_null() && moved as usize % 16 == 0);
                check(moved, from, to);
                assert!(raw::usable_size(moved) >= to);
                raw::free_sized(moved, to, 16);
            }
            for align in [1, 64, 4096, 16384] {
                // Copies of the largest at the largest alignment take their time and show no more.
                if align == 16384 && from.max(to) > 66 * MIB {
                    continue;
                }
                let layout = Layout::from_size_align(from, align).unwrap();
                let after = Layout::from_size_align(to, align).unwrap();
                // SAFETY: as above.
                unsafe {
                    let block = TierMalloc::new().alloc(layout);
                    fill(block, from);
                    let moved = TierMalloc::new().realloc(block, layout, to);
                    assert!(!moved.is_null() && moved as usize % align == 0, "{from} {to} {align}");
                    check(moved, from, to);
                    TierMalloc::new().dealloc(moved, after);
                }
            }
        }
    }
}

#[test]
fn a_block_stays_where_it_is_while_its_class_does() {
    if support::skipped_in(
        &[Pool::System, Pool::Guarded],
        "a block has the size that was asked for",
    ) {
        return;
    }
    let mut smallest = 1;
    for class in by_size() {
        let sizes = [smallest, (smallest + class.size()) / 2, class.size()];
        smallest = class.size() + 1;
        for align in [1, 8, 16] {
            for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
                if class_of(from, align) != class_of(to, align) {
                    continue;
                }
                let layout = Layout::from_size_align(from, align).unwrap();
                // SAFETY: as above.
                unsafe {
                    let block = TierMalloc::new().alloc(layout);
                    assert_eq!(
                        TierMalloc::new().realloc(block, layout, to),
                        block,
                        "{from} {to} {align}"
                    );
                    TierMalloc::new().dealloc(block, Layout::from_size_align(to, align).unwrap());
                    if align == 16 {
                        let block = raw::malloc(from);
                        assert_eq!(raw::realloc(block, to), block, "{from} {to}");
                        raw::free(block);
                    }
                }
            }
        }
    }
}

#[test]
fn pages_grow_in_place_into_free_neighbours_and_give_their_ends_back() {
    alone_in_tiers("pages_grow_in_place_into_free_neighbours_and_give_their_ends_back", || {
        // SAFETY: as above.
        unsafe {
            let block = raw::malloc(900 * 1024);
            fill(block, 900 * 1024);
            let (before, usable) = (stats().live, raw::usable_size(block));
            for size in [300, 500, 400, 700, 900].map(|kib| kib * 1024) {
                assert_eq!(raw::realloc(block, size), block, "{size}");
                check(block, 900 * 1024, 300 * 1024);
                // What is left over is a quarter at most.
                let now = raw::usable_size(block);
                assert!(now >= size && now - size <= now / 4 + 8192, "{now} {size}");
                assert_eq!(before - stats().live, usable - now);
            }
            let next = raw::malloc(300 * 1024);
            let moved = raw::realloc(block, 3 * MIB);
            check(moved, 900 * 1024, 300 * 1024);
            raw::free(moved);
            raw::free(next);
        }
    });
}

#[test]
fn a_large_block_that_grows_is_moved_by_the_system_and_not_copied() {
    alone_in_tiers("a_large_block_that_grows_is_moved_by_the_system_and_not_copied", || {
        // SAFETY: as above.
        unsafe {
            let mut block = raw::malloc(2 * MIB);
            fill(block, 2 * MIB);
            let resident = support::resident();
            // Something behind it, or it would just grow where it is.
            let behind = raw::malloc(2 * MIB);
            for size in [70, 140, 300, 500, 900].map(|mib| mib * MIB) {
                block = raw::realloc(block, size);
                assert!(!block.is_null());
                check(block, 2 * MIB, size);
            }
            assert_eq!(stats().huge_count, 1);
            // Copying would have touched 500 MiB.
            assert!(support::resident() < resident + 8 * MIB);
            raw::free(block);
            raw::free(behind);
            assert_eq!(stats().huge, 0);
        }
    });
}

#[test]
fn a_resize_that_cannot_be_changes_nothing() {
    for size in SIZES {
        // SAFETY: as above.
        unsafe {
            let block = raw::malloc(size);
            fill(block, size);
            for absurd in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 8192, 1 << 47] {
                support::set_errno(0);
                assert!(raw::realloc(block, absurd).is_null());
                assert_eq!(support::errno(), libc::ENOMEM);
                check(block, size, size);
            }
            raw::free(block);
            let layout = Layout::from_size_align(size, 8).unwrap();
            let block = TierMalloc::new().alloc(layout);
            fill(block, size);
            assert!(TierMalloc::new().realloc(block, layout, isize::MAX as usize - 8192).is_null());
            check(block, size, size);
            TierMalloc::new().dealloc(block, layout);
        }
    }
}

#[test]
fn a_block_that_grows_by_small_steps_moves_seldom_and_never_back() {
    if tiermalloc::config().pool != tiermalloc::Pool::Tiered {
        return;
    }
    for step in [1, 7, 100, 1000, 4096] {
        let mut block = tiermalloc::raw::malloc(16);
        let (mut moves, mut room) = (0, 16);
        for size in (16..256 * 1024).step_by(step) {
            // SAFETY: live; freed below.
            unsafe {
                let now = tiermalloc::raw::realloc_roomy(block, size);
                moves += usize::from(now != block);
                block = now;
                let usable = tiermalloc::raw::usable_size(block);
                assert!(usable >= room, "from {room} back to {usable} at {size}");
                room = usable;
            }
        }
        assert!(moves < 50, "{moves} moves by {step}");
        // SAFETY: live, and not used any more.
        unsafe { tiermalloc::raw::free(block) };
    }
}
