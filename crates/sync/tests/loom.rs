//! Models of the futex lock's own algorithm, with the kernel's side of a futex modelled by a lock
//! and a condition variable, and of the word that brings a worker.
#![cfg(tiermalloc_loom)]

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use tiermalloc_sync::atomic::{AtomicU32, Ordering};
use tiermalloc_sync::errand::Errand;
use tiermalloc_sync::futex::{State, Wait};

/// A futex as the kernel makes it: comparing the word and going to sleep are one step under the lock
/// of the word's queue, and waking takes that lock too.
#[derive(Default)]
struct Queue {
    lock: Mutex<()>,
    sleepers: Condvar,
}

impl Wait for Queue {
    fn wait(&self, word: &AtomicU32, expected: u32) {
        let queue = self.lock.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            // May wake up for no reason: that is what `Wait` allows, and loom's queue never does.
            drop(self.sleepers.wait(queue).unwrap());
        }
    }
    fn wake_one(&self, _: &AtomicU32) {
        let _queue = self.lock.lock().unwrap();
        self.sleepers.notify_one();
    }
}

/// Sleeping that is no sleep at all: every wait returns at once, "for no reason".
struct Restless;

impl Wait for Restless {
    fn wait(&self, _: &AtomicU32, _: u32) {
        thread::yield_now();
    }
    fn wake_one(&self, _: &AtomicU32) {}
}

/// A counter that only the lock protects; loom fails on any access that the lock does not order.
struct Guarded<W> {
    state: State,
    wait: W,
    count: UnsafeCell<usize>,
}

impl<W: Wait> Guarded<W> {
    fn new(wait: W) -> Arc<Self> {
        Arc::new(Self { state: State::new(), wait, count: UnsafeCell::new(0) })
    }
    fn add_one(&self) {
        self.state.lock(&self.wait);
        assert!(self.state.is_locked());
        // SAFETY: the lock is held; loom checks that this is enough.
        self.count.with_mut(|count| unsafe { *count += 1 });
        // SAFETY: locked above.
        unsafe { self.state.unlock(&self.wait) };
    }
    fn count(&self) -> usize {
        // SAFETY: as in `add_one`; called when the other threads are joined.
        self.count.with(|count| unsafe { *count })
    }
}

// SAFETY: the count is only touched with the lock held.
unsafe impl<W: Sync> Sync for Guarded<W> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<W: Send> Send for Guarded<W> {}

/// Three threads take the lock in turn: no two hold it at once, each sees what the one before wrote,
/// and nobody sleeps for ever (a lost wake-up would be loom's deadlock).
#[test]
fn three_threads_exclude_each_other_and_no_wake_up_is_lost() {
    loom::model(|| {
        let shared = Guarded::new(Queue::default());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.add_one())
            })
            .collect();
        shared.add_one();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.count(), 3);
        assert!(!shared.state.is_locked());
    });
}

/// A thread that slept and one that comes back for the lock again do not leave each other asleep.
#[test]
fn taking_the_lock_again_and_again_loses_no_sleeper() {
    loom::model(|| {
        let shared = Guarded::new(Queue::default());
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.add_one();
                shared.add_one();
            })
        };
        shared.add_one();
        shared.add_one();
        other.join().unwrap();
        assert_eq!(shared.count(), 4);
    });
}

/// Waking up for no reason, as a futex may, lets nobody in who has not got the lock.
#[test]
fn waking_up_for_no_reason_does_not_break_the_exclusion() {
    loom::model(|| {
        let shared = Guarded::new(Restless);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.add_one())
        };
        shared.add_one();
        other.join().unwrap();
        assert_eq!(shared.count(), 2);
    });
}

/// `try_lock` never waits, never lets two in, and what it lets in sees the last holder's writes.
#[test]
fn try_lock_gives_the_lock_to_at_most_one() {
    loom::model(|| {
        let shared = Guarded::new(Queue::default());
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.add_one())
        };
        let mut mine = 0;
        if shared.state.try_lock() {
            // SAFETY: `try_lock` said that the lock is ours.
            shared.count.with_mut(|count| unsafe { *count += 1 });
            // SAFETY: as above.
            unsafe { shared.state.unlock(&shared.wait) };
            mine = 1;
        }
        other.join().unwrap();
        assert_eq!(shared.count(), 1 + mine);
    });
}

/// Work that two threads find, and the workers that they bring.
struct Works {
    errand: Errand,
    found: [AtomicU32; 2],
    done: AtomicU32,
    /// Touched by workers alone, of which there is one at a time.
    workers: UnsafeCell<u32>,
    /// What a worker leaves behind for the next one: the place where it worked.
    place: AtomicU32,
}

// SAFETY: `workers` is touched by the one worker; loom checks that.
unsafe impl Sync for Works {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Works {}

impl Works {
    /// Finds work, and does it if nobody else will.
    fn find(&self, which: usize) {
        // Relaxed: only the word orders it.
        self.found[which].store(1, Ordering::Relaxed);
        if self.errand.ask() {
            // The one before may not have left its place yet: as `Worker::start` takes it.
            while self.place.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                thread::yield_now();
            }
            self.work();
            self.place.store(0, Ordering::Release);
        }
    }

    fn work(&self) {
        // SAFETY: the worker's alone (E1); loom checks that.
        self.workers.with_mut(|workers| unsafe { *workers += 1 });
        loop {
            self.errand.begin();
            for found in &self.found {
                // What was found is asked for without waiting for the newest word of it: a load that
                // comes too early misses it.
                if found.load(Ordering::Relaxed) != 0 && found.swap(0, Ordering::Relaxed) != 0 {
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
            }
            if self.errand.leave() {
                return;
            }
        }
    }
}

/// Two threads find work at any moment of each other's and of the worker's: there is one worker at a
/// time, and when all have left, everything that was found is done.
#[test]
fn nothing_is_left_undone_when_the_worker_leaves_and_there_is_one_at_a_time() {
    loom::model(|| {
        let works = Arc::new(Works {
            errand: Errand::new(),
            found: [AtomicU32::new(0), AtomicU32::new(0)],
            done: AtomicU32::new(0),
            workers: UnsafeCell::new(0),
            place: AtomicU32::new(0),
        });
        let other = {
            let works = Arc::clone(&works);
            thread::spawn(move || works.find(1))
        };
        works.find(0);
        other.join().unwrap();
        assert_eq!(works.done.load(Ordering::Relaxed), 2);
        let workers = works.workers.with(|workers| {
            // SAFETY: the other thread is gone.
            unsafe { *workers }
        });
        assert!(workers == 1 || workers == 2);
    });
}
