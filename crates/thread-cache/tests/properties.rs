//! Random sequences over all classes and several threads' caches: bounds and conservation, after every
//! step (`support/world.rs`).
#![cfg(not(tiermalloc_loom))]

mod support;

use proptest::prelude::*;
use support::world::{Op, THREADS, run};
use support::{MIB, Objects, Registry, STEPS, Thread, class_of_size, classes};
use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::Budget;

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
        1 => (0..40 * MIB).prop_map(|bytes| Op::Reserve { bytes }),
    ]
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
