//! One loop per entry point of `GlobalAlloc`, for counting instructions: `pairs-PEER ENTRY ROUNDS`.
//!
//! The sibling of `benches/instructions/pairs.c`. Most loops go over 64 slots, release what is in a
//! slot and allocate anew; those called bulk allocate many objects and then free them all.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use peer::Peer;

const SLOTS: usize = 64;
/// Objects of a bulk round, and of one that another thread frees.
const BULK: usize = 4000;
const HANDED: usize = 1000;

/// Runs the entry that the command line names.
pub fn main(peer: &Peer) -> ExitCode {
    (peer.start)();
    let mut args = std::env::args().skip(1);
    let entry = args.next().unwrap_or_default();
    let Some(rounds) = args.next().and_then(|text| text.parse().ok()) else {
        return ExitCode::from(2);
    };
    match entry.as_str() {
        "pair-24" => pairs::<24, 8>(rounds),
        "pair-1000" => pairs::<1000, 8>(rounds),
        "pair-4096" => pairs::<4096, 8>(rounds),
        "pair-20000" => pairs::<20_000, 8>(rounds),
        "pair-300000" => pairs::<300_000, 8>(rounds),
        "pair-unknown" => pairs_unknown(rounds, black_box(24)),
        "aligned-64" => pairs::<64, 64>(rounds),
        "aligned-4096" => pairs::<4096, 4096>(rounds),
        "zeroed-24" => zeroed::<24>(rounds),
        "zeroed-1000" => zeroed::<1000>(rounds),
        "zeroed-100000" => zeroed::<100_000>(rounds),
        "realloc" => reallocs(rounds),
        "realloc-grow" => grow(rounds),
        "bulk-32-fifo" => bulk_fifo::<32>(rounds),
        "bulk-32-lifo" => bulk_lifo::<32>(rounds),
        "bulk-32-random" => bulk_random::<32>(rounds),
        // 16 MB: more than a thread's cache holds in most allocators.
        "bulk-4096-fifo" => bulk_fifo::<4096>(rounds),
        "bulk-4096-lifo" => bulk_lifo::<4096>(rounds),
        "bulk-4096-random" => bulk_random::<4096>(rounds),
        "handed" => handed(rounds),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

const fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
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
fn pairs<const SIZE: usize, const ALIGN: usize>(rounds: usize) {
    slots(rounds, const { layout(SIZE, ALIGN) }, |_, old| {
        // SAFETY: `old` came from `alloc` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, const { layout(SIZE, ALIGN) });
            // Without this the compiler may see that nobody uses the memory, and drop the pair.
            black_box(alloc(const { layout(SIZE, ALIGN) }))
        }
    });
}

#[inline(never)]
fn pairs_unknown(rounds: usize, size: usize) {
    let layout = layout(size, 8);
    slots(rounds, layout, |_, old| {
        // SAFETY: `old` came from `alloc` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, layout);
            black_box(alloc(layout))
        }
    });
}

#[inline(never)]
fn zeroed<const SIZE: usize>(rounds: usize) {
    slots(rounds, const { layout(SIZE, 8) }, |_, old| {
        // SAFETY: `old` came from `alloc` or `alloc_zeroed` with this layout, whose size is not 0.
        unsafe {
            dealloc(old, const { layout(SIZE, 8) });
            black_box(alloc_zeroed(const { layout(SIZE, 8) }))
        }
    });
}

/// Sizes 1001 to 1004 share a class: nothing moves.
#[inline(never)]
fn reallocs(rounds: usize) {
    slots(rounds, layout(1001, 8), |i, old| {
        // Round `i` is the visit `i / SLOTS` of its slot; the visit before it left `size_of_visit`.
        let size_of_visit = |visit: usize| 1001 + (visit & 3);
        let visit = i / SLOTS;
        // SAFETY: `old` was last allocated with the size of visit `visit` (1001 at the first) and
        // this alignment; the new size is not 0.
        unsafe {
            black_box(realloc(old, layout(size_of_visit(visit), 8), size_of_visit(visit + 1)))
        }
    });
}

/// Grows one block from 16 bytes to 64 KiB by doubling: twelve calls, what they copy included.
#[inline(never)]
fn grow(rounds: usize) {
    for _ in 0..rounds {
        let mut size = 16;
        // SAFETY: the size is not 0.
        let mut block = unsafe { alloc(layout(size, 8)) };
        while size < 65_536 {
            // SAFETY: `block` has this layout, and the new size is not 0.
            block = unsafe { black_box(realloc(block, layout(size, 8), size * 2)) };
            size *= 2;
        }
        // SAFETY: `block` has this layout.
        unsafe { dealloc(block, layout(size, 8)) };
    }
}

/// Allocates many objects, then frees them, the object freed `j`-th being `which(j)`.
#[inline(always)]
fn bulk<const SIZE: usize>(rounds: usize, which: impl Fn(usize) -> usize) {
    let mut objects = vec![std::ptr::null_mut::<u8>(); BULK];
    for _ in 0..rounds {
        for object in &mut objects {
            // SAFETY: the size is not 0.
            *object = black_box(unsafe { alloc(const { layout(SIZE, 8) }) });
        }
        for j in 0..BULK {
            // SAFETY: `which` is a permutation, so each object, of this layout, is freed once.
            unsafe { dealloc(objects[which(j)], const { layout(SIZE, 8) }) };
        }
    }
}

#[inline(never)]
fn bulk_fifo<const SIZE: usize>(rounds: usize) {
    bulk::<SIZE>(rounds, |j| j);
}

#[inline(never)]
fn bulk_lifo<const SIZE: usize>(rounds: usize) {
    bulk::<SIZE>(rounds, |j| BULK - 1 - j);
}

/// Fisher and Yates, with a generator of the plainest kind.
#[inline(never)]
fn bulk_random<const SIZE: usize>(rounds: usize) {
    let mut order = vec![0_usize; BULK];
    let mut state = 1_u64;
    for j in 0..BULK {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = (state >> 33) as usize % (j + 1);
        order[j] = order[other];
        order[other] = j;
    }
    bulk::<SIZE>(rounds, |j| order[j]);
}

/// One thread allocates, another frees; they take turns, so that only allocator work varies.
#[inline(never)]
fn handed(rounds: usize) {
    const LAYOUT: Layout = layout(32, 8);
    let turn = Barrier::new(2);
    let objects = [const { AtomicPtr::new(std::ptr::null_mut::<u8>()) }; HANDED];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                turn.wait();
                for object in &objects {
                    // SAFETY: the other thread has just allocated it with this layout, and waits.
                    unsafe { dealloc(object.load(Relaxed), LAYOUT) };
                }
                turn.wait();
            }
        });
        for _ in 0..rounds {
            for object in &objects {
                // SAFETY: the size is not 0.
                object.store(unsafe { alloc(LAYOUT) }, Relaxed);
            }
            turn.wait();
            turn.wait();
        }
    });
}
