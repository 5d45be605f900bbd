//! A memory allocator in tiers: thread cache, central cache, page heap.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();
//!
//! let words: Vec<String> = ["two", "lines"].map(String::from).into();
//! assert_eq!(words.join(" "), "two lines");
//! ```
//!
//! # The road of an allocation
//!
//! ```text
//!   alloc(size, align)            class_of: which of 208 classes?  ---- none ----> whole pages
//!        |                                                                            |
//!   bin of this thread            pop: a dozen instructions, no lock, no atomic       |
//!        | empty                                                                      |
//!   transfer cache of the class   a batch that another thread freed                   |
//!        | empty                                                                      |
//!   fullest span of the class     objects carved in order of address                  |
//!        | none                                                                       v
//!   page heap                     a run of 8 KiB pages, split or fresh  <-------------'
//!        | none
//!   operating system
//! ```
//!
//! Freeing goes the same way upwards; `dealloc` knows the class from the size, C's `free` reads it
//! from one byte of the page map. This crate is the facade: it owns the only statics, the threads'
//! life cycle and the fork handlers, and holds no allocation policy of its own.
//!
//! # Invariants
//! - G1: the thread's word is the address of its own cache, or of one of two shared caches that are
//!   never written to: `EMPTY` (none yet) and `DEAD` (the thread's cache has been taken down, or the
//!   pool gives threads none).
//! - G2: an object is served in `class_of(size, align)` at every entry point, so that a sized and an
//!   unsized free agree.
//! - G3: nothing here locks through std, allocates through the global allocator, or panics.
//!
//! Lock order: gate of the background, caches that wait, registry of threads, transfer caches by class, span lists by class, page heap.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(test)]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod background;
pub mod config;
mod fatal;
mod fork;
mod global;
mod guarded;
mod hardened;
mod large;
mod limits;
mod line;
mod parked;
mod pools;
pub mod raw;
mod report;
mod resize;
mod slow;
mod state;
mod stats;
mod system;
mod thread;
mod tls;

pub use config::{Config, Pool};
pub use global::TierMalloc;
pub use report::{with_snapshot, write_stats};
pub use stats::{
    CLASS_FIELDS, ClassStats, Counts, Field, Kind as FieldKind, LockWaits, MOST_THREADS, Reason,
    Snapshot, Stats, TOTAL_FIELDS, ThreadStats, Unit, stats,
};

/// Gives as much memory back to the operating system as can be given without touching what other
/// threads keep: the calling thread's cache, the transfer caches, and all free pages but `keep`
/// bytes. Returns the number of bytes that went back.
///
/// Cost: proportional to what is cached; a system call per free span.
pub fn trim(keep: usize) -> usize {
    slow::trim(keep)
}

/// Sets the soft limit, in bytes, and returns the one before; 0 stands for none. While more than that is in use,
/// caches shrink and free pages go back to the system as soon as they are free: a free may make a system
/// call then. What counts, and when: `docs/memory.md`.
pub fn set_soft_limit(bytes: usize) -> usize {
    limits::set_soft(bytes)
}

/// Sets the hard limit, in bytes, and returns the one before; 0 stands for none. An allocation that would make the
/// heap exceed it fails. What is in use already stays, so a limit below that refuses everything until enough
/// has been freed. How much caches may hold stays as it was configured.
pub fn set_hard_limit(bytes: usize) -> usize {
    limits::set_hard(bytes)
}

/// For a thread that will do nothing for long: gives what its cache holds back to the spans, so that others, or the
/// system, can have it, and what it has claimed of the bytes that all caches may hold. The thread may
/// allocate and free at any time; its cache fills again then.
///
/// Cost: proportional to what is cached.
pub fn thread_idle() {
    slow::thread_idle();
}

/// For a thread that is about to be busy: gives it a cache now if it has none, so that its first allocation does
/// not have to.
pub fn thread_busy() {
    thread::current();
}

/// Looks through the calling thread's cache for traces of a double free or of a free into the middle
/// of an object; a program in which there are any ends here, with a line that says what. The library
/// calls it when a program ends, because such mistakes cost nothing to make and are seen late.
///
/// Cost: some ten nanoseconds for each object looked at, up to 256 for each class in use.
pub fn verify() {
    slow::verify();
}

/// What was chosen, by whom ever: decided at the first allocation, or by this call if it comes earlier.
pub fn config() -> Config {
    *config::get()
}

/// Registers the fork handlers now and not at the first allocation. Handlers run last-in-first-out
/// before a fork, so the earlier this is called, the safer are other libraries' handlers that
/// allocate or take locks. Calling it again does nothing.
pub fn prepare_for_fork() {
    fork::install();
}

/// Takes the signals that the configuration asks for, and begins what it wants every so often, now and not at the first
/// allocation. The fork handlers are in place by then. Calling it again does nothing.
pub fn prepare_reports() {
    report::install();
}

/// [`prepare_for_fork`] for whom `pthread_atfork` comes too late: `register` is called with the handlers
/// for before a fork, after it in the parent, and after it in the child, unless they are registered
/// already.
///
/// # Safety
/// `register` has them called then and only then.
pub unsafe fn prepare_for_fork_by(
    register: impl FnOnce(unsafe extern "C" fn(), unsafe extern "C" fn(), unsafe extern "C" fn()),
) {
    fork::install_by(register);
}

/// For a library that is about to be unloaded: threads' ends are not told to the allocator any more, and
/// no thread of its own runs. What threads have cached then stays with them; the allocator works on, for as
/// long as it is there.
pub fn forget_threads() {
    background::stop();
    report::leave_signals();
    thread::delete_key();
}

/// For a library that may be called before the loader has filled its TLS block: gives the calling
/// thread's word its first value if it has none. `false`: the thread has no TLS at all yet, as early in
/// the start of a static program.
pub fn prepare_thread_word() -> bool {
    tls::prepare()
}
