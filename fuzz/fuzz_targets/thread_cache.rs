//! Several threads' caches over one budget and a source that keeps book and refuses, against the model of
//! their property tests (`crates/thread-cache/tests/support/world.rs`): bounds hold after every step, the
//! budget is conserved to the byte, and no object is lost or in two places.
#![no_main]

#[path = "../../crates/thread-cache/tests/support/mod.rs"]
mod support;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use support::STEPS;
use support::world::{Op, THREADS, run};
use tiermalloc_size_class::{CLASSES, Class};
use tiermalloc_thread_cache::Budget;

/// Operations of one input.
const OPS: usize = 100;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Bytes of the budget: nothing, a little, or much.
    total: u32,
    /// Which part of it one thread may have.
    share: u8,
    /// The floor of a shared budget.
    floor: Option<u16>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Alloc {
        thread: u8,
        class: u8,
        count: u8,
    },
    Free {
        thread: u8,
        pick: u16,
        count: u8,
    },
    Idle {
        thread: u8,
        steps: u16,
    },
    AskBack {
        thread: u8,
        bytes: u32,
    },
    AskAnother {
        thread: u8,
    },
    FlushAll {
        thread: u8,
    },
    Exit {
        thread: u8,
    },
    Refuse {
        n: u8,
        count: u8,
    },
    Stingy(bool),
    /// How much stands behind the source.
    Reserve {
        mib: u8,
    },
}

impl Step {
    fn op(&self) -> Op {
        let thread = |n: u8| usize::from(n) % THREADS;
        match *self {
            Self::Alloc { thread: t, class, count } => Op::Alloc {
                thread: thread(t),
                class: Class::from_id(1 + usize::from(class) % CLASSES).expect("in range"),
                count: 1 + usize::from(count % 64),
            },
            Self::Free { thread: t, pick, count } => Op::Free {
                thread: thread(t),
                pick: pick.into(),
                count: 1 + usize::from(count % 64),
            },
            Self::Idle { thread: t, steps } => {
                Op::Idle { thread: thread(t), steps: usize::from(steps) % (2 * STEPS) }
            }
            Self::AskBack { thread: t, bytes } => {
                Op::AskBack { thread: thread(t), bytes: bytes as usize % 200_000 }
            }
            Self::AskAnother { thread: t } => Op::AskAnother { thread: thread(t) },
            Self::FlushAll { thread: t } => Op::FlushAll { thread: thread(t) },
            Self::Exit { thread: t } => Op::Exit { thread: thread(t) },
            Self::Refuse { n, count } => {
                Op::Refuse { n: 1 + usize::from(n % 4), count: usize::from(count % 16) }
            }
            Self::Stingy(stingy) => Op::Stingy { stingy },
            Self::Reserve { mib } => Op::Reserve { bytes: usize::from(mib) << 20 },
        }
    }
}

fuzz_target!(|input: Input| {
    let total = input.total as usize % (4 << 20);
    let share = total / (1 + usize::from(input.share % 4));
    let budget = match input.floor {
        Some(floor) => Budget::shared(total, share, floor.into()),
        None => Budget::new(total, share),
    };
    let ops: Vec<Op> = input.steps.iter().take(OPS).map(Step::op).collect();
    run(&budget, &ops);
});
