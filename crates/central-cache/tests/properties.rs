//! The central cache against the reference model in `support/run.rs`, under random sequences of every
//! operation.
#![cfg(not(tiermalloc_loom))]

mod support;

use proptest::prelude::*;
use support::run::{Op, SIZES, run};
use support::{MIB, chain_of, class_of_size, with_cache};

/// An operation, and how many times it is done in a row.
fn op() -> impl Strategy<Value = (Op, usize)> {
    let class = 0..SIZES.len();
    let one = prop_oneof![
        6 => (class.clone(), 1..40usize).prop_map(|(class, wanted)| Op::Fetch { class, wanted }),
        1 => class.clone().prop_map(|class| Op::FetchOne { class }),
        2 => class.clone().prop_map(|class| Op::TakeOne { class }),
        2 => (class.clone(), any::<usize>())
            .prop_map(|(class, which)| Op::PutOne { class, which }),
        3 => (class.clone(), any::<usize>(), 1..40usize, any::<bool>()).prop_map(
            |(class, from, count, reversed)| Op::Store { class, from, count, reversed }
        ),
        3 => (class.clone(), any::<usize>())
            .prop_map(|(class, from)| Op::StoreBatch { class, from }),
        1 => (class.clone(), 0..3usize, any::<usize>())
            .prop_map(|(class, before, what)| Op::Misuse { class, before, what }),
        1 => class.clone().prop_map(|class| Op::Plunder { class }),
        1 => (class.clone(), 0..4usize).prop_map(|(class, batches)| Op::Drain { class, batches }),
        3 => class.clone().prop_map(|class| Op::MakeWay { class }),
        1 => (1..3usize, 0..4usize).prop_map(|(n, count)| Op::Refuse { n, count }),
        1 => prop_oneof![0..MIB, 2 * MIB..100 * MIB, Just(usize::MAX)]
            .prop_map(|bytes| Op::Reserve { bytes }),
    ];
    let many = prop_oneof![
        2 => class.clone().prop_map(|class| Op::Fetch { class, wanted: 32 }),
        2 => (class, any::<usize>()).prop_map(|(class, from)| Op::StoreBatch { class, from }),
        1 => Just(Op::PlunderNext),
    ];
    prop_oneof![9 => (one, Just(1)), 1 => (many, 1..50usize)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_does_what_the_model_says(ops in proptest::collection::vec(op(), 1..150)) {
        let ops: Vec<Op> =
            ops.into_iter().flat_map(|(op, times)| std::iter::repeat_n(op, times)).collect();
        with_cache(|cache| run(cache, &ops));
    }

    /// Whatever the order in which objects come back, and in chains of whatever length, every span
    /// goes back to the source with its last object.
    #[test]
    fn the_order_of_return_is_irrelevant(
        size in proptest::sample::select(&SIZES[..]),
        cuts in proptest::collection::vec(1..40usize, 1..60),
        order in Just((0..600usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        with_cache(|cache| {
            let class = class_of_size(size);
            let count = (2 * class.objects() + 1).min(600);
            let all = support::fetch_all(cache, class, count);
            let mut left: Vec<*mut u8> =
                order.iter().filter(|&&i| i < count).map(|&i| all[i]).collect();
            let mut cuts = cuts.iter().cycle();
            while !left.is_empty() {
                let cut = (*cuts.next().unwrap()).min(left.len());
                let chain = chain_of(&left.split_off(left.len() - cut));
                // SAFETY: the objects are ours.
                unsafe { cache.store(class, chain) }.unwrap();
            }
            let stats = cache.stats(class);
            prop_assert_eq!(stats.out, stats.transfer);
            cache.drain(class, usize::MAX).unwrap();
            prop_assert_eq!(cache.stats(class).out, 0);
            prop_assert_eq!(cache.source().spans_out(), 0);
            Ok(())
        })?;
    }
}
