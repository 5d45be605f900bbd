//! A thread of the kernel's that the C library knows nothing of.
//!
//! An allocator that starts a thread through `pthread_create` does it from within somebody's `malloc` or
//! `free`, where the C library may hold the very locks that it needs for that, and makes a process of one
//! thread one of several: its locks and reference counts get slower, and it does not end when its last
//! own thread does. So this one is made by the system call, with the flags of any other thread.
//!
//! What runs there has no thread-local variables, no `errno`, and nothing of the C library that might use
//! them; and no more stack than a [`Worker`] has. Its thread pointer points into zeros, so that what a compiler
//! adds to count or to watch (coverage keeps the depth of the stack in a thread-local variable) does no
//! harm. All signals are blocked there.
//!
//! # Invariants
//! - W1: `tid` is 0 exactly while no thread uses the stack. Who starts one makes it `STARTING` first; the
//!   kernel writes the thread's number and, once the thread is gone, however it ends, 0 again.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// Stack of a worker in bytes. It lies in `.bss`: what is not touched costs nothing.
const STACK: usize = 64 * 1024;
/// `tid` while the thread is being made; no thread has this number.
const STARTING: u32 = u32::MAX;

/// Bytes on either side of the thread pointer: what a program and its libraries have in static TLS.
const TLS: usize = 64 * 1024;

#[repr(C, align(64))]
struct Stack(UnsafeCell<[u8; STACK]>);

/// Zeros around a thread pointer, but for its own address where x86-64 looks for it.
#[repr(C, align(64))]
struct Zeros {
    below: UnsafeCell<[u8; TLS]>,
    at: UnsafeCell<[usize; 8]>,
    above: UnsafeCell<[u8; TLS]>,
}

/// Room for one such thread at a time. All zero.
#[repr(C)]
pub struct Worker {
    stack: Stack,
    zeros: Zeros,
    tid: AtomicU32,
}

// SAFETY: the stack is touched by the one thread that W1 allows.
unsafe impl Sync for Worker {}

impl Worker {
    /// No thread.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            stack: Stack(UnsafeCell::new([0; STACK])),
            zeros: Zeros {
                below: UnsafeCell::new([0; TLS]),
                at: UnsafeCell::new([0; 8]),
                above: UnsafeCell::new([0; TLS]),
            },
            tid: AtomicU32::new(0),
        }
    }

    /// Whether a thread runs, or is being made.
    #[inline]
    pub fn is_running(&self) -> bool {
        // Acquire: pairs with the kernel's write of 0, behind which the stack is free.
        self.tid.load(Ordering::Acquire) != 0
    }

    /// Starts a thread that runs `body` and ends. `false`: one runs already, or the kernel makes none.
    ///
    /// Cost: three system calls.
    ///
    /// # Safety
    /// `body` keeps the module's rules, and its code stays loaded while it runs.
    pub unsafe fn start(&'static self, body: extern "C" fn()) -> bool {
        // W1. Acquire: as in `is_running`.
        let free = Ordering::Acquire;
        if self.tid.compare_exchange(0, STARTING, free, Ordering::Relaxed).is_err() {
            return false;
        }
        let top = self.stack.0.get() as usize + STACK;
        let pointer = self.zeros.at.get();
        // SAFETY: the words are ours (W1). The first and the third are where a thread's own address is on
        // x86-64; on aarch64 both are the C library's alone.
        unsafe {
            (*pointer)[0] = pointer as usize;
            (*pointer)[2] = pointer as usize;
        }
        // SAFETY: the stack is ours (W1) and stays, as do the zeros and the word; the caller answers for
        // `body`.
        if unsafe { sys::spawn(top, pointer as usize, &self.tid, body) } {
            return true;
        }
        self.tid.store(0, Ordering::Release);
        false
    }

    /// Whether an address, that of a local variable say, lies on the worker's stack.
    pub fn has_on_stack(&self, address: usize) -> bool {
        let start = self.stack.0.get() as usize;
        (start..start + STACK).contains(&address)
    }

    /// Waits until no thread runs. The caller has asked it to end.
    pub fn join(&self) {
        loop {
            match self.tid.load(Ordering::Acquire) {
                0 => return,
                // The kernel wakes who waits for the word when it writes the 0.
                tid => sys::futex_wait_shared(&self.tid, tid, 10),
            }
        }
    }

    /// In the child of a fork, where the thread does not exist.
    ///
    /// # Safety
    /// This is the child, and its only thread.
    pub unsafe fn forget(&self) {
        self.tid.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    static FIRST: Worker = Worker::new();
    static ROUNDS: AtomicU32 = AtomicU32::new(0);

    extern "C" fn count() {
        let local = 0u8;
        assert!(FIRST.has_on_stack(&raw const local as usize));
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_worker_runs_its_body_once_for_each_start_and_leaves_the_stack() {
        for round in 1..=200 {
            // SAFETY: `count` uses no stack to speak of and nothing of the C library.
            assert!(unsafe { FIRST.start(count) });
            FIRST.join();
            assert_eq!(ROUNDS.load(Ordering::Relaxed), round);
            assert!(!FIRST.is_running());
            assert!(!FIRST.has_on_stack(&raw const round as usize));
        }
    }

    static WAITING: Worker = Worker::new();
    static GO: AtomicU32 = AtomicU32::new(0);

    extern "C" fn wait() {
        while GO.load(Ordering::Acquire) == 0 {
            sys::futex_wait_for(&GO, 0, 1);
        }
    }

    #[test]
    fn there_is_one_at_a_time_and_it_takes_no_signals() {
        // SAFETY: `wait` keeps the rules.
        unsafe {
            assert!(WAITING.start(wait));
            assert!(WAITING.is_running());
            assert!(!WAITING.start(wait));
        }
        let tid = WAITING.tid.load(Ordering::Relaxed);
        let status = std::fs::read_to_string(std::format!("/proc/self/task/{tid}/status")).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        // Those that come from elsewhere; an emulator keeps some of the others for itself.
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM] {
            assert_ne!(blocked >> (signal - 1) & 1, 0, "{signal} {blocked:x}");
        }
        GO.store(1, Ordering::Release);
        WAITING.join();
    }

    static LATE: Worker = Worker::new();
    static FOUND: AtomicU32 = AtomicU32::new(u32::MAX);

    std::thread_local! {
        static WATCHED: core::cell::Cell<u32> = const { core::cell::Cell::new(7) };
    }

    extern "C" fn touch() {
        // Whoever has started this is gone by then.
        sys::futex_wait_for(&FOUND, u32::MAX, 100);
        WATCHED.with(|depth| {
            FOUND.store(depth.get(), Ordering::Release);
            depth.set(1);
        });
    }

    #[test]
    fn what_a_compiler_adds_finds_zeros_in_place_of_thread_local_variables() {
        std::thread::spawn(|| {
            WATCHED.with(|depth| depth.set(9));
            // SAFETY: `touch` breaks the rule, to see that it does no harm.
            assert!(unsafe { LATE.start(touch) });
        })
        .join()
        .unwrap();
        LATE.join();
        assert_eq!(FOUND.load(Ordering::Acquire), 0, "neither the starter's nor anybody's");
        assert_eq!(WATCHED.with(core::cell::Cell::get), 7);
    }

    static GONE: Worker = Worker::new();

    #[test]
    fn a_worker_that_a_fork_has_left_behind_is_forgotten() {
        GONE.tid.store(STARTING, Ordering::Relaxed);
        // SAFETY: as in a fork's child, nobody uses the stack.
        unsafe {
            assert!(!GONE.start(count), "one seems to run");
            GONE.forget();
        }
        assert!(!GONE.is_running());
        // Of nothing: a worker of one test alone.
        let fresh = std::boxed::Box::new(Worker::new());
        assert!(!fresh.is_running());
        fresh.join();
    }
}
