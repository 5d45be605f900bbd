//! One loop per entry point of `GlobalAlloc`, for counting instructions: `PROGRAM ENTRY ROUNDS`.
//!
//! Each goes over 64 slots, releases what is in a slot and allocates anew, as its sibling in C does.
//! Both programs, on tiermalloc and on the system's allocator, are this file.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;

const SLOTS: usize = 64;

/// Runs the entry that the command line names; what it returns is the exit status.
pub fn main() -> i32 {
    let mut args = std::env::args().skip(1);
    let entry = args.next().unwrap_or_default();
    let Some(rounds) = args.next().and_then(|text| text.parse().ok()) else { return 2 };
    match entry.as_str() {
        "pair-24" => pairs::<24>(rounds),
        "pair-1000" => pairs::<1000>(rounds),
        "pair-unknown" => pairs_unknown(rounds, black_box(24)),
        "zeroed-24" => zeroed(rounds),
        "realloc" => reallocs(rounds),
        _ => return 2,
    }
    0
}

const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a size that no layout has"),
    }
}

/// Fills the slots, then runs `round` on them in turn. `round` is inlined: one loop an entry.
#[inline(always)]
fn slots(rounds: usize, layout: Layout, mut round: impl FnMut(usize, *mut u8) -> *mut u8) {
    let mut slots = [std::ptr::null_mut::<u8>(); SLOTS];
    for slot in &mut slots {
        // SAFETY: no layout here has size 0.
        *slot = unsafe { alloc(layout) };
    }
    for i in 0..rounds {
        let slot = &mut slots[i % SLOTS];
        *slot = round(i, *slot);
    }
    black_box(&slots);
}

#[inline(never)]
fn pairs<const SIZE: usize>(rounds: usize) {
    slots(rounds, const { layout(SIZE) }, |_, old| {
        // SAFETY: `old` came from `alloc` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, const { layout(SIZE) });
            // Without this the compiler may see that nobody uses the memory, and drop the pair.
            black_box(alloc(const { layout(SIZE) }))
        }
    });
}

#[inline(never)]
fn pairs_unknown(rounds: usize, size: usize) {
    let layout = layout(size);
    slots(rounds, layout, |_, old| {
        // SAFETY: `old` came from `alloc` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, layout);
            black_box(alloc(layout))
        }
    });
}

#[inline(never)]
fn zeroed(rounds: usize) {
    slots(rounds, const { layout(24) }, |_, old| {
        // SAFETY: `old` came from `alloc` or `alloc_zeroed` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, const { layout(24) });
            black_box(alloc_zeroed(const { layout(24) }))
        }
    });
}

/// Sizes 1001 to 1004 share a class: nothing moves.
#[inline(never)]
fn reallocs(rounds: usize) {
    slots(rounds, layout(1001), |i, old| {
        // Round `i` is the visit `i / SLOTS` of its slot; the visit before it left `size_of_visit`.
        let size_of_visit = |visit: usize| 1001 + (visit & 3);
        let visit = i / SLOTS;
        // SAFETY: `old` was last allocated with the size of visit `visit` (1001 at the first) and
        // this alignment; the new size is not 0.
        unsafe { black_box(realloc(old, layout(size_of_visit(visit)), size_of_visit(visit + 1))) }
    });
}
