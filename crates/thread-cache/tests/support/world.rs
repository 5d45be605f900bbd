//! Several threads' caches, the program that uses them, and what must hold of bounds and objects after every
//! step.
//!
//! - B1: what a cache holds fits its capacities, these its limit, and that its share:
//!   `cached bytes <= used <= limit <= floor + per_thread` (T2), of which no more is claimed than a quarter of
//!   what has ever stood behind the source, or 4 MiB.
//! - B2: the limits of all caches beyond their floors and what nobody has claimed make up the total,
//!   exactly.
//! - B3: an object is in the program's hands, in one cache, or in the source: none is lost, none is
//!   twice, and what the program wrote into it is there.

use std::ptr::NonNull;

use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::Budget;

use super::{Fault, MIB, Objects, Registry, Thread, class_of_size};

/// Threads at any time.
pub const THREADS: usize = 3;

#[derive(Clone, Debug)]
pub enum Op {
    /// So many allocations in a row.
    Alloc {
        thread: usize,
        class: Class,
        count: usize,
    },
    /// So many frees in a row of what the program holds, by whichever thread.
    Free {
        thread: usize,
        pick: usize,
        count: usize,
    },
    /// Allocates and frees an object again and again: time goes by for the other bins.
    Idle {
        thread: usize,
        steps: usize,
    },
    AskBack {
        thread: usize,
        bytes: usize,
    },
    AskAnother {
        thread: usize,
    },
    FlushAll {
        thread: usize,
    },
    /// A thread ends and another begins.
    Exit {
        thread: usize,
    },
    Refuse {
        n: usize,
        count: usize,
    },
    Stingy {
        stingy: bool,
    },
    /// So much stands behind the source from now on.
    Reserve {
        bytes: usize,
    },
}

struct World<'a> {
    source: &'a Objects,
    budget: &'a Budget,
    total: usize,
    registry: &'a Registry,
    threads: Vec<Thread<'a, Objects>>,
    held: Vec<(Class, *mut u8)>,
    /// The largest share of what stands behind the source that a cache has ever been granted (bytes).
    share: usize,
}

impl<'a> World<'a> {
    fn begin(&mut self) {
        let thread = Thread::new(self.source, self.budget, self.registry);
        // SAFETY: removed in `end`, before the cache goes.
        unsafe { self.registry.add(NonNull::from(&*thread.cache)) };
        self.threads.push(thread);
    }

    fn end(&mut self, index: usize) {
        let thread = self.threads.remove(index);
        thread.retire().unwrap();
        assert_eq!((thread.cached(), thread.cache.limit()), ((0, 0), 0));
        // SAFETY: added in `begin`.
        unsafe { self.registry.remove(NonNull::from(&*thread.cache)) };
    }

    fn alloc(&mut self, thread: usize, class: Class) {
        let object = self.threads[thread].alloc(class);
        if object.is_null() {
            return;
        }
        // SAFETY: the object is ours, and at least 8 bytes long.
        unsafe { object.cast::<usize>().write(object as usize ^ class.id()) };
        self.held.push((class, object));
        self.threads[thread].check_bounds();
    }

    fn free(&mut self, thread: usize, pick: usize) {
        if self.held.is_empty() {
            return;
        }
        let (class, object) = self.held.swap_remove(pick % self.held.len());
        // SAFETY: as above.
        assert_eq!(unsafe { object.cast::<usize>().read() }, object as usize ^ class.id());
        self.threads[thread].free(class, object);
        self.threads[thread].check_bounds();
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Alloc { thread, class, count } => {
                (0..count).for_each(|_| self.alloc(thread, class));
            }
            Op::Free { thread, pick, count } => (0..count).for_each(|_| self.free(thread, pick)),
            Op::Idle { thread, steps } => {
                for _ in 0..steps {
                    self.alloc(thread, class_of_size(262144));
                    self.free(thread, self.held.len().wrapping_sub(1));
                }
            }
            Op::AskBack { thread, bytes } => self.threads[thread].cache.ask_back(bytes),
            Op::AskAnother { thread } => {
                self.registry.ask_another(&self.threads[thread].cache, 16 * 1024);
            }
            Op::FlushAll { thread } => {
                self.threads[thread].flush_all();
                assert_eq!(self.threads[thread].cached(), (0, 0));
            }
            Op::Exit { thread } => {
                self.end(thread);
                self.begin();
            }
            Op::Refuse { n, count } => self.source.fault(Some(Fault::Refuse { n, count })),
            Op::Stingy { stingy } => self.source.be_stingy(stingy),
            Op::Reserve { bytes } => {
                self.source.books().reserved = bytes;
                self.share = self.share.max(bytes / 8);
            }
        }
    }

    fn check(&self) {
        let mut claimed = 0;
        let mut cached = 0;
        for thread in &self.threads {
            thread.check_bounds();
            let its = thread.cache.limit() - self.budget.floor();
            assert!(its <= self.share, "B1: {its} of {}", self.share);
            claimed += its;
            cached += thread.cached().0;
        }
        assert_eq!(claimed + self.budget.unclaimed(), self.total, "B2");
        assert_eq!(self.source.out(), self.held.len() + cached, "B3");
    }
}

/// Does one operation after the other, checks everything after each, and at the end that nothing is missing.
pub fn run(budget: &Budget, ops: &[Op]) {
    let (source, registry) = (Objects::new(), Registry::new());
    let total = budget.unclaimed();
    let mut world = World {
        source: &source,
        budget,
        total,
        registry: &registry,
        threads: Vec::new(),
        held: Vec::new(),
        share: 4 * MIB,
    };
    source.books().reserved = 0;
    (0..THREADS).for_each(|_| world.begin());
    for op in ops {
        world.step(op);
        world.check();
    }
    source.fault(None);
    while !world.held.is_empty() {
        world.free(0, 0);
    }
    (0..THREADS).for_each(|_| world.end(0));
    assert_eq!((source.out(), budget.unclaimed(), registry.count()), (0, total, 0));
}
