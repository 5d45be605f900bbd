//! Every entry point against the model allocator of `support/blocks.rs`: nothing overlaps, nothing
//! changes, zeroed is zero, aligned is aligned; with blocks that wander between threads.

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;
use support::Random;
use support::blocks::{Block, Blocks, Door};
use tiermalloc_size_class::{MAX_SIZE, PAGE_SIZE, by_size};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const THREADS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Malloc(usize),
    MallocCached(usize),
    Aligned(usize, usize),
    Rust(usize, usize),
    Zeroed(usize, usize, Door),
    Realloc(usize, usize),
    Free(usize, bool),
    /// Gives a block to the next thread, which may resize or free it.
    Give(usize),
    Trim(usize),
}

/// Sizes of every kind, and those next to the borders between kinds.
fn size() -> impl Strategy<Value = usize> {
    let borders: Vec<usize> = by_size()
        .map(|class| class.size())
        .chain([MAX_SIZE + PAGE_SIZE, 1 << 20, 3 << 20])
        .flat_map(|border| [border - 1, border, border + 1])
        .collect();
    prop_oneof![
        8 => 1..1024usize,
        4 => proptest::sample::select(borders),
        2 => 1024..MAX_SIZE,
        1 => MAX_SIZE..2 << 20,
    ]
}

fn align() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..5u32, 2 => 5..15u32, 1 => 15..22u32].prop_map(|shift| 1 << shift)
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<usize>();
    let door = prop_oneof![Just(Door::Aligned), Just(Door::Rust)];
    prop_oneof![
        3 => size().prop_map(Op::Malloc),
        1 => size().prop_map(Op::MallocCached),
        2 => (size(), align()).prop_map(|(size, align)| Op::Aligned(size, align)),
        4 => (size(), align()).prop_map(|(size, align)| Op::Rust(size, align)),
        2 => (size(), align(), door).prop_map(|(size, align, door)| Op::Zeroed(size, align, door)),
        3 => (pick, size()).prop_map(|(pick, size)| Op::Realloc(pick, size)),
        7 => (pick, any::<bool>()).prop_map(|(pick, sized)| Op::Free(pick, sized)),
        3 => pick.prop_map(Op::Give),
        1 => (0..4usize << 20).prop_map(Op::Trim),
    ]
}

fn step(op: &Op, blocks: &mut Blocks, next: &Sender<Block>) {
    match *op {
        Op::Malloc(size) => blocks.add(Block::malloc(size)),
        Op::MallocCached(size) => blocks.add(Block::malloc_cached(size)),
        Op::Aligned(size, align) => blocks.add(Block::aligned(size, align)),
        Op::Rust(size, align) => blocks.add(Block::rust(size, align)),
        Op::Zeroed(size, align, door) => blocks.add(Block::zeroed(size, align, door)),
        Op::Realloc(pick, size) => {
            if let Some(block) = blocks.take(pick) {
                blocks.add(block.realloc(size));
            }
        }
        Op::Free(pick, sized) => {
            if let Some(block) = blocks.take(pick) {
                block.free(sized);
            }
        }
        Op::Give(pick) => {
            if let Some(block) = blocks.take(pick) {
                next.send(block).expect("the next thread receives to the end");
            }
        }
        Op::Trim(keep) => {
            tiermalloc::trim(keep);
        }
    }
}

/// Runs `work` in as many threads as there are; each has its blocks, a way to the next thread, and
/// takes in what comes from the one before.
fn in_a_ring(work: impl Fn(usize, &mut Blocks, &Sender<Block>, &Receiver<Block>) + Sync) {
    std::thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| channel::<Block>()).unzip();
        for (me, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(me + 1) % THREADS].clone();
            let work = &work;
            scope.spawn(move || {
                let mut blocks = Blocks::default();
                work(me, &mut blocks, &next, &receiver);
                drop(next);
                receiver.iter().for_each(|block| blocks.add(block));
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn blocks_keep_apart_and_keep_what_they_hold(
        ops in proptest::collection::vec(proptest::collection::vec(op(), 1..200), THREADS)
    ) {
        in_a_ring(|me, blocks, next, before| {
            for op in &ops[me] {
                step(op, blocks, next);
                before.try_iter().for_each(|block| blocks.add(block));
            }
        });
    }
}

#[test]
fn blocks_keep_apart_under_a_long_random_load() {
    for seed in 0..3u64 {
        in_a_ring(|me, blocks, next, before| {
            let mut random = Random::new(seed * 1000 + me as u64);
            for _ in 0..25_000 {
                let size = random.size(3 << 20);
                let rare = random.below(10) == 0;
                let align = 1 << random.below(if rare { 14 } else { 5 });
                let pick = random.below(usize::MAX >> 17);
                let op = match random.below(16) {
                    0..2 => Op::Malloc(size),
                    2 => Op::MallocCached(size),
                    3 => Op::Aligned(size, align),
                    4..6 => Op::Rust(size, align),
                    6 => Op::Zeroed(size, align, Door::Rust),
                    7 => Op::Zeroed(size, align, Door::Aligned),
                    8 => Op::Realloc(pick, size),
                    9..11 => Op::Give(pick),
                    _ => Op::Free(pick, pick % 2 == 0),
                };
                step(&op, blocks, next);
                before.try_iter().for_each(|block| blocks.add(block));
                // Grows and shrinks between nothing and a few thousand blocks.
                while blocks.len() > 3000 {
                    (0..2500).for_each(|n| step(&Op::Free(n * 7, n % 2 == 0), blocks, next));
                }
            }
        });
    }
}

#[test]
fn zeroed_memory_is_zero_also_where_it_was_used_before() {
    for door in [Door::Rust, Door::Aligned] {
        for size in [1, 8, 100, 1024, 5000, 8192, 30_000, 100_000, MAX_SIZE, 300_000, 2 << 20] {
            for align in [1, 16, 64, 4096, 16384] {
                // Dirty, all of them freed, in one order and in the other, and with some kept.
                for round in 0..4 {
                    let mut dirty: Vec<Block> = (0..9).map(|_| Block::rust(size, align)).collect();
                    if round % 2 == 0 {
                        dirty.reverse();
                    }
                    let kept = dirty.split_off(if round < 2 { 0 } else { 5 });
                    dirty.into_iter().for_each(|block| block.free(true));
                    if round == 3 {
                        tiermalloc::trim(0);
                    }
                    let zeroed: Vec<_> = (0..9).map(|_| Block::zeroed(size, align, door)).collect();
                    zeroed.into_iter().chain(kept).for_each(|block| block.free(round % 2 == 1));
                }
            }
        }
    }
}

/// All of the above, in each of the other pools.
#[test]
fn every_pool_keeps_blocks_apart() {
    const INSIDE: &str = "TIERMALLOC_TEST_POOL";
    if support::is_emulated() || std::env::var_os(INSIDE).is_some() {
        return;
    }
    for pool in ["central", "hardened", "guarded", "system"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--test-threads=2"])
            .env(INSIDE, pool)
            .env("TIERMALLOC_CONF", format!("pool={pool}"))
            .output()
            .expect("the test starts again");
        let text = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{pool}: {text}{told}");
    }
}
