//! The one place where tiermalloc meets the memory model.
//!
//! Every tier takes its atomics, locks and padding from here. In an ordinary build these are the
//! types of `core`, `lock_api` and `crossbeam-utils`; built with `--cfg tiermalloc_loom` the same
//! names are loom's, so that the models run the code that ships and not a copy of it.
//!
//! | name | ordinary build | under loom |
//! |---|---|---|
//! | [`atomic`] | `core::sync::atomic` | `loom::sync::atomic` |
//! | [`cell::Cell`] | `core::cell::Cell` | `loom::cell::Cell`, which sees unordered accesses |
//! | [`Mutex`] | `lock_api::Mutex<R, T>` | `loom::sync::Mutex<T>`, `R` ignored |
//! | [`RawFutexMutex`] | four bytes, a counter and two system calls | not used; its algorithm ([`futex::State`]) has a model of its own |
//! | [`CachePadded`] | `crossbeam_utils` | the same |
//!
//! The crate also holds [`sys`]: the few Linux system calls that an allocator makes, without
//! `errno` and without libc's wrappers, because a successful `malloc` or `free` leaves `errno`
//! alone; and [`worker`], a thread that the C library knows nothing of.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(any(test, tiermalloc_loom))]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

pub mod errand;
#[cfg(not(tiermalloc_loom))]
pub mod files;
pub mod futex;
#[cfg(tiermalloc_loom)]
pub mod modelled;
mod mutex;
pub mod sys;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(tiermalloc_loom)
))]
pub mod worker;

pub use crossbeam_utils::CachePadded;
pub use mutex::{
    CountsWaits, DefaultRawMutex, Mutex, MutexGuard, Patience, RawFutexMutex, force_unlock,
    leak_locked,
};
#[cfg(not(tiermalloc_loom))]
pub use mutex::{lock_within, waits};

/// Atomic types: `core`'s, or loom's under `--cfg tiermalloc_loom`.
pub mod atomic {
    #[cfg(not(tiermalloc_loom))]
    pub use core::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
        Ordering, fence,
    };
    #[cfg(tiermalloc_loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
        Ordering, fence,
    };
}

/// Cells of records that pass from thread to thread: `core`'s, or loom's under
/// `--cfg tiermalloc_loom`, which fail on an access that nothing orders after the last one.
pub mod cell {
    #[cfg(not(tiermalloc_loom))]
    pub use core::cell::Cell;
    #[cfg(tiermalloc_loom)]
    pub use loom::cell::Cell;
}

/// Asks the processor for the cache line at an address, which may be anything, null among it: a hint.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing and faults never; every processor of the architecture has it.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

/// Tells the processor (or loom's scheduler) that this is a turn of a spin loop.
#[inline]
pub fn spin_hint() {
    #[cfg(not(tiermalloc_loom))]
    core::hint::spin_loop();
    #[cfg(tiermalloc_loom)]
    loom::thread::yield_now();
}
