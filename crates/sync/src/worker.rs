//! A thread of the kernel's that the C library knows nothing of.
//!
//! An allocator that starts a thread through `pthread_create` does it from within somebody's `malloc` or
//! `free`, where the C library may hold the very locks that it needs for that, and makes a process of one
//! thread one of several: its locks and reference counts get slower, and it does not end when its last
//! own thread does. So this one is made by the system call, with the flags of any other thread.
//!
//! What runs there shares the thread pointer of whoever started it, who may be gone by now: it uses no
//! thread-local variable, no `errno`, nothing of the C library that might, and no more stack than a
//! [`Worker`] has. All signals are blocked there.
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

#[repr(C, align(64))]
struct Stack(UnsafeCell<[u8; STACK]>);

/// Room for one such thread at a time. All zero.
#[repr(C)]
pub struct Worker {
    stack: Stack,
    tid: AtomicU32,
}

// SAFETY: the stack is touched by the one thread that W1 allows.
unsafe impl Sync for Worker {}

impl Worker {
    /// No thread.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { stack: Stack(UnsafeCell::new([0; STACK])), tid: AtomicU32::new(0) }
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
        // SAFETY: the stack is ours (W1) and stays; the word stays; the caller answers for `body`.
        if unsafe { sys::spawn(top, &self.tid, body) } {
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
}
