//! Bounds and conservation, after every step of random sequences over all classes and several threads'
//! caches.
//!
//! - B1: what a cache holds fits its capacities, these its limit, and that its share:
//!   `cached bytes <= used <= limit <= floor + per_thread` (T2).
//! - B2: the limits of all caches beyond their floors and what nobody has claimed make up the total,
//!   exactly.
//! - B3: an object is in the program's hands, in one cache, or in the source: none is lost, none is
//!   twice, and what the program wrote into it is there.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;

use proptest::prelude::*;
use support::{Fault, Objects, Registry, STEPS, Thread, class_of_size, classes};
use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::Budget;

const THREADS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
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
}

/// Any class, but those that programs use often more often.
fn class() -> impl Strategy<Value = Class> {
    let all: Vec<Class> = classes().collect();
    prop_oneof![
        2 => proptest::sample::select(all),
        1 => proptest::sample::select(&[16, 64, 1024, 8192, 28672, 262144][..])
            .prop_map(class_of_size),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let thread = 0..THREADS;
    prop_oneof![
        8 => (thread.clone(), class(), 1..60usize)
            .prop_map(|(thread, class, count)| Op::Alloc { thread, class, count }),
        8 => (thread.clone(), any::<usize>(), 1..60usize)
            .prop_map(|(thread, pick, count)| Op::Free { thread, pick, count }),
        1 => (thread.clone(), 1..2 * STEPS).prop_map(|(thread, steps)| Op::Idle { thread, steps }),
        1 => (thread.clone(), 0..200_000usize)
            .prop_map(|(thread, bytes)| Op::AskBack { thread, bytes }),
        1 => thread.clone().prop_map(|thread| Op::AskAnother { thread }),
        1 => thread.clone().prop_map(|thread| Op::FlushAll { thread }),
        1 => thread.prop_map(|thread| Op::Exit { thread }),
        1 => (1..4usize, 0..9usize).prop_map(|(n, count)| Op::Refuse { n, count }),
        1 => any::<bool>().prop_map(|stingy| Op::Stingy { stingy }),
    ]
}

struct World<'a> {
    source: &'a Objects,
    budget: &'a Budget,
    total: usize,
    registry: &'a Registry,
    threads: Vec<Thread<'a, Objects>>,
    held: Vec<(Class, *mut u8)>,
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
        }
    }

    fn check(&self) {
        let mut claimed = 0;
        let mut cached = 0;
        for thread in &self.threads {
            thread.check_bounds();
            claimed += thread.cache.limit() - self.budget.floor();
            cached += thread.cached().0;
        }
        assert_eq!(claimed + self.budget.unclaimed(), self.total, "B2");
        assert_eq!(self.source.out(), self.held.len() + cached, "B3");
    }
}

fn run(budget: &Budget, ops: &[Op]) {
    let (source, registry) = (Objects::new(), Registry::new());
    let total = budget.unclaimed();
    let mut world = World {
        source: &source,
        budget,
        total,
        registry: &registry,
        threads: Vec::new(),
        held: Vec::new(),
    };
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_and_objects_are_conserved_at_every_step(
        total in prop_oneof![Just(0), 1..100_000usize, 100_000..4_000_000usize],
        share in 1..5usize,
        floor in prop_oneof![Just(None), (0..50_000usize).prop_map(Some)],
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let budget = match floor {
            Some(floor) => Budget::shared(total, total / share, floor),
            None => Budget::new(total, total / share),
        };
        run(&budget, &ops);
    }

    /// A thread that only frees what another allocates, in whatever rhythm, keeps within its bounds and
    /// sends on what it does not keep.
    #[test]
    fn a_stream_from_one_thread_to_another_leaves_only_what_the_bounds_allow(
        class in class(),
        bursts in proptest::collection::vec(1..100usize, 1..40),
    ) {
        let (source, registry) = (Objects::new(), Registry::new());
        let budget = Budget::new(1 << 20, 1 << 18);
        let (maker, freer) =
            (Thread::new(&source, &budget, &registry), Thread::new(&source, &budget, &registry));
        for burst in bursts {
            let all: Vec<_> = (0..burst).map(|_| maker.alloc(class)).collect();
            for object in all {
                freer.free(class, object);
                freer.check_bounds();
            }
            prop_assert!(freer.cache.cached(class) <= class.batch());
            prop_assert_eq!(source.out(), maker.cached().0 + freer.cached().0);
        }
        maker.retire().unwrap();
        freer.retire().unwrap();
        prop_assert_eq!((source.out(), budget.unclaimed()), (0, 1 << 20));
    }
}
