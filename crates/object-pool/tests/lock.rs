//! When the pool's lock is held: over every use of its memory, and never while a value's own code runs.
#![cfg(not(tiermalloc_loom))]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ptr::NonNull;

use tiermalloc_object_pool::{ChunkSource, Pool};

thread_local! {
    /// Whether this thread holds a [`Told`], and how often it has taken one.
    static HELD: Cell<bool> = const { Cell::new(false) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// A lock for one thread that tells what becomes of it.
struct Told;

// SAFETY: it excludes the one thread that uses it from itself.
unsafe impl lock_api::RawMutex for Told {
    const INIT: Self = Self;
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        assert!(self.try_lock(), "waits for itself");
    }
    fn try_lock(&self) -> bool {
        TAKEN.set(TAKEN.get() + 1);
        !HELD.replace(true)
    }
    unsafe fn unlock(&self) {
        assert!(HELD.replace(false), "given up by somebody who does not hold it");
    }
}

/// Chunks that are only asked for under the lock.
struct UnderLock;

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl ChunkSource for UnderLock {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        assert!(HELD.get(), "two threads may be here at once");
        // SAFETY: chunks are not empty.
        NonNull::new(unsafe { alloc(layout) })
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { dealloc(chunk.as_ptr(), layout) }
    }
}

#[test]
fn every_use_of_the_pool_is_under_its_lock() {
    let pool: Pool<u64, UnderLock, Told> = Pool::with_chunk_bytes(UnderLock, 64);
    let taken = |work: &mut dyn FnMut()| {
        let before = TAKEN.get();
        work();
        assert!(!HELD.get(), "given up again");
        TAKEN.get() - before
    };
    let mut values = Vec::new();
    for n in 0..100 {
        assert_eq!(taken(&mut || values.push(pool.insert(n).ok())), 1);
    }
    assert_eq!(taken(&mut || assert_eq!(pool.live(), 100)), 1);
    assert_eq!(taken(&mut || drop(values.pop())), 1);
    assert_eq!(taken(&mut || values.clear()), 99);
    assert_eq!(pool.live(), 0);
}

/// A value that looks at itself when it is dropped, and puts another one into its own pool.
#[repr(C)]
struct Looks<'a> {
    word: u64,
    pool: &'a Pool<u64, UnderLock, Told>,
    drops: &'a Cell<usize>,
}

const WORD: u64 = 0x5bd1_e995_0000_0001;

impl Drop for Looks<'_> {
    fn drop(&mut self) {
        assert_eq!(self.word, WORD, "it is dropped as it was put in");
        assert!(!HELD.get(), "its code may use the pool");
        assert!(self.pool.insert(7).is_ok());
        self.drops.set(self.drops.get() + 1);
    }
}

#[test]
fn a_value_is_dropped_before_its_memory_goes_back_and_outside_the_lock() {
    let (numbers, drops) = (Pool::new(UnderLock), Cell::new(0));
    let pool: Pool<Looks<'_>, UnderLock, Told> = Pool::new(UnderLock);
    let looks = || Looks { word: WORD, pool: &numbers, drops: &drops };
    let values: Vec<_> = (0..10).map(|_| pool.insert(looks()).ok()).collect();
    drop(values);
    assert_eq!((drops.get(), pool.live(), numbers.live()), (10, 0, 0));
}
