//! The central cache over several classes and a source that refuses, against the model of its property
//! tests (`crates/central-cache/tests/support/run.rs`): objects are conserved, none is handed out
//! twice, none overlaps another, spans go back once and when they are whole; a double free and a
//! misplaced pointer are reported as what they are.
#![no_main]

#[path = "../../crates/central-cache/tests/support/mod.rs"]
mod support;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use support::run::{Op, SIZES, run};
use support::with_cache;

/// Operations of one input.
const OPS: usize = 200;

#[derive(Arbitrary, Debug)]
enum Step {
    Fetch {
        class: u8,
        wanted: u8,
    },
    FetchOne {
        class: u8,
    },
    TakeOne {
        class: u8,
    },
    PutOne {
        class: u8,
        which: u16,
    },
    Store {
        class: u8,
        from: u16,
        count: u8,
        reversed: bool,
    },
    StoreBatch {
        class: u8,
        from: u16,
    },
    Misuse {
        class: u8,
        before: u8,
        what: u16,
    },
    Plunder {
        class: u8,
    },
    Drain {
        class: u8,
        batches: u8,
    },
    Refuse {
        n: u8,
        count: u8,
    },
    /// So many whole batches at once: transfer caches fill, spans empty.
    FetchBatches {
        class: u8,
        count: u8,
    },
    StoreBatches {
        class: u8,
        count: u8,
        from: u16,
    },
    MakeWay {
        class: u8,
    },
    PlunderNext {
        count: u8,
    },
    /// How much stands behind the cache.
    Reserve {
        mib: u8,
    },
}

fn class(class: u8) -> usize {
    usize::from(class) % SIZES.len()
}

impl Step {
    /// What the model is to do, and how many times.
    fn op(&self) -> (Op, u8) {
        let op = match *self {
            Self::Fetch { class: c, wanted } => {
                Op::Fetch { class: class(c), wanted: 1 + usize::from(wanted % 40) }
            }
            Self::FetchOne { class: c } => Op::FetchOne { class: class(c) },
            Self::TakeOne { class: c } => Op::TakeOne { class: class(c) },
            Self::PutOne { class: c, which } => Op::PutOne { class: class(c), which: which.into() },
            Self::Store { class: c, from, count, reversed } => Op::Store {
                class: class(c),
                from: from.into(),
                count: 1 + usize::from(count % 64),
                reversed,
            },
            Self::StoreBatch { class: c, from } => {
                Op::StoreBatch { class: class(c), from: from.into() }
            }
            Self::Misuse { class: c, before, what } => {
                Op::Misuse { class: class(c), before: usize::from(before % 4), what: what.into() }
            }
            Self::Plunder { class: c } => Op::Plunder { class: class(c) },
            Self::Drain { class: c, batches } => {
                Op::Drain { class: class(c), batches: usize::from(batches % 32) }
            }
            Self::Refuse { n, count } => {
                Op::Refuse { n: 1 + usize::from(n % 4), count: count.into() }
            }
            Self::FetchBatches { class: c, count } => {
                return (Op::Fetch { class: class(c), wanted: 32 }, count % 32);
            }
            Self::StoreBatches { class: c, count, from } => {
                return (Op::StoreBatch { class: class(c), from: from.into() }, count % 32);
            }
            Self::MakeWay { class: c } => Op::MakeWay { class: class(c) },
            Self::PlunderNext { count } => return (Op::PlunderNext, count % 16),
            Self::Reserve { mib } => Op::Reserve { bytes: usize::from(mib) << 20 },
        };
        (op, 1)
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let ops: Vec<Op> = steps
        .iter()
        .take(OPS)
        .map(Step::op)
        .flat_map(|(op, times)| std::iter::repeat_n(op, times.into()))
        .collect();
    with_cache(|cache| run(cache, &ops));
});
