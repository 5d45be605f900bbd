//! The central cache against the reference model in `support/run.rs`, under random sequences of every
//! operation.
#![cfg(not(tiermalloc_loom))]

mod support;

use proptest::prelude::*;
use support::run::{Op, SIZES, run};
use support::{MIB, chain_of, class_of_size, spread, with_cache, with_shards};

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
        3 => (class.clone(), any::<usize>(), 1..40usize, 1..40usize, any::<bool>()).prop_map(
            |(class, from, count, first, reversed)| Op::SendFirst { class, from, count, first, reversed }
        ),
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

/// An operation near one of several shards, and how many times it is done in a row.
fn spread_op() -> impl Strategy<Value = (spread::Op, usize)> {
    use spread::Op;
    let (class, near, many) = (0..SIZES.len(), 0..32usize, any::<usize>);
    let place = (near.clone(), class.clone());
    let common = prop_oneof![
        6 => (place.clone(), 1..40usize)
            .prop_map(|((near, class), wanted)| Op::Fetch { near, class, wanted }),
        2 => place.clone().prop_map(|(near, class)| Op::FetchOne { near, class }),
        4 => (place.clone(), many(), 1..70usize, 1..9usize).prop_map(
            |((near, class), from, count, apart)| Op::Store { near, class, from, count, apart }
        ),
        4 => (place.clone(), many(), 1..9usize)
            .prop_map(|((near, class), from, apart)| Op::StoreBatch { near, class, from, apart }),
    ];
    let rare = prop_oneof![
        class.clone().prop_map(|class| Op::TakeOne { class }),
        (class, many()).prop_map(|(class, which)| Op::PutOne { class, which }),
        (place.clone(), many()).prop_map(|((near, class), which)| Op::FreeTwice {
            near,
            class,
            which
        }),
        place.clone().prop_map(|(near, class)| Op::Plunder { near, class }),
        (place.clone(), 0..4usize).prop_map(|((near, class), batches)| Op::Drain {
            near,
            class,
            batches
        }),
        place.clone().prop_map(|(near, class)| Op::MakeWay { near, class }),
        near.clone().prop_map(|near| Op::PlunderNext { near }),
        near.prop_map(|near| Op::FreeIdle { near }),
        Just(Op::FreeKept),
        prop_oneof![Just(2), Just(4), Just(16)].prop_map(|shards| Op::Widen { shards }),
        prop_oneof![0..MIB, 2 * MIB..100 * MIB, Just(usize::MAX)]
            .prop_map(|bytes| Op::Reserve { bytes }),
        prop_oneof![0..20 * MIB, Just(usize::MAX)].prop_map(|bytes| Op::Room { bytes }),
        any::<bool>().prop_map(|tight| Op::Tight { tight }),
        any::<bool>().prop_map(|runs| Op::Runs { runs }),
        (1..3usize, 0..4usize).prop_map(|(n, count)| Op::Refuse { n, count }),
        (1..3usize, 0..4usize).prop_map(|(n, count)| Op::RefuseRecarving { n, count }),
    ];
    prop_oneof![6 => (common, 1..12usize), 2 => (rare, Just(1))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_does_what_the_model_says(ops in proptest::collection::vec(op(), 1..150)) {
        let ops: Vec<Op> =
            ops.into_iter().flat_map(|(op, times)| std::iter::repeat_n(op, times)).collect();
        with_cache(|cache| run(cache, &ops));
    }

    /// However many shards there are, and wherever objects come from and go to.
    #[test]
    fn objects_are_conserved_across_shards(
        shards in prop_oneof![Just(1usize), Just(2), Just(4), Just(8), Just(16)],
        ops in proptest::collection::vec(spread_op(), 1..120),
    ) {
        let ops: Vec<_> =
            ops.into_iter().flat_map(|(op, times)| std::iter::repeat_n(op, times)).collect();
        with_shards(shards, |cache| {
            // What all of it together has reserved, and runs where there are any.
            cache.source().reserve(64 * MIB);
            cache.source().give_runs(true);
            spread::run(cache, &ops);
        });
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
