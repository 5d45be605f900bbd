//! Caches that a fork has left behind, and the threads of the child that take them in.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Orphans, Registry, ThreadCache};

/// Caches that no thread owns, and a cell for each, into which whoever takes it in writes.
struct Left {
    orphans: Orphans,
    caches: [Box<ThreadCache>; 3],
    taken: [UnsafeCell<bool>; 3],
}

// SAFETY: loom sees to it that nobody is where somebody else is.
unsafe impl Send for Left {}
// SAFETY: as above.
unsafe impl Sync for Left {}

impl Left {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            orphans: Orphans::new(),
            caches: std::array::from_fn(|_| Box::new(ThreadCache::new())),
            taken: std::array::from_fn(|_| UnsafeCell::new(true)),
        })
    }

    /// Those caches are orphans from here on, linked as the registry leaves them.
    fn leave(&self, which: std::ops::Range<usize>) {
        let registry = Registry::<DefaultRawMutex>::new();
        for n in which {
            // SAFETY: loom checks that nobody has it.
            self.taken[n].with_mut(|taken| unsafe { *taken = false });
            // SAFETY: taken out again below.
            unsafe { registry.add(NonNull::from(&*self.caches[n])) };
        }
        let first = registry.take_all_but(None).expect("added above");
        // SAFETY: nobody's, and they stay as long as `self`.
        unsafe { self.orphans.add(first) };
    }

    /// Takes one in, and says whether there was one.
    fn adopt(&self) -> bool {
        let Some(orphan) = self.orphans.take() else { return false };
        let found = self.caches.iter().position(|cache| &raw const **cache == orphan.as_ptr());
        // SAFETY: loom checks that nobody else has it, and that we see what was done before it was left.
        let had = self.taken[found.unwrap()]
            .with_mut(|taken| unsafe { std::mem::replace(&mut *taken, true) });
        assert!(!had, "a cache is taken in twice");
        true
    }

    /// Once nobody else is there: what is left, and what was taken in, is all that there was.
    fn finish(&self, adopted: usize) {
        let mut all = adopted;
        while self.adopt() {
            all += 1;
        }
        assert!(self.orphans.is_empty());
        assert_eq!(all, 3, "an orphan is lost");
    }
}

/// Threads that take in orphans at once get one each, or none: no cache is in two hands, none is lost, and
/// whoever has one sees what its thread wrote.
#[test]
fn orphans_are_taken_in_once_each_and_none_is_lost() {
    loom::model(|| {
        let left = Left::new();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let left = left.clone();
                thread::spawn(move || usize::from(left.adopt()) + usize::from(left.adopt()))
            })
            .collect();
        left.leave(0..3);
        let mine = usize::from(left.adopt());
        let adopted = mine + others.into_iter().map(|other| other.join().unwrap()).sum::<usize>();
        left.finish(adopted);
    });
}

/// Orphans that are added while others are taken in, and put back, stay with them: none is lost between.
#[test]
fn orphans_that_come_while_others_are_taken_in_are_not_lost() {
    loom::model(|| {
        let left = Left::new();
        left.leave(0..2);
        let other = {
            let left = left.clone();
            thread::spawn(move || usize::from(left.adopt()))
        };
        left.leave(2..3);
        let mine = usize::from(left.adopt());
        left.finish(mine + other.join().unwrap());
    });
}
