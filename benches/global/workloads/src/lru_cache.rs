//! A cache with least-recently-used eviction whose values grow over time: fragmentation.
//!
//! Freed blocks are always a little smaller than what is asked for next. Robson and, for servers,
//! Rumble, Kejriwal and Ousterhout ("Log-structured memory for DRAM-based storage", 2014) describe why
//! this pattern is hard: the heap holds enough free bytes, in the wrong sizes. The cache is bounded by
//! bytes, sizes drift from 64 to 2,048 on the average, and hits move entries, so ages mix.

use std::collections::VecDeque;

use crate::Workload;
use crate::block::Block;
use crate::hash_map::Map;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "lru-cache", about: "a cache of values whose sizes drift", run };

/// Bytes of values that the cache holds.
const CAPACITY: usize = 64 << 20;

struct Entry {
    value: Block,
    /// When it was last used; older marks in the queue are stale.
    used: u64,
}

#[derive(Default)]
struct Cache {
    entries: Map<u64, Entry>,
    queue: VecDeque<(u64, u64)>,
    bytes: usize,
    clock: u64,
}

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x1a0c, 0);
    let mut cache = Cache::default();
    let rounds = params.times(3_000_000);
    let mut sum = 0;
    for round in 0..rounds {
        // Keys that drift too: the newest are the likeliest.
        let key = (round / 4 + rng.below(100_000)) as u64;
        match cache.get(key) {
            Some(digest) => sum = add(sum, digest),
            None => {
                let mean = 64 + (2048 - 64) * round / rounds;
                let size = rng.within(mean / 2, mean + mean / 2);
                cache.insert(key, Block::new(size, key as u8));
            }
        }
    }
    add(sum, cache.bytes as u64)
}

impl Cache {
    fn get(&mut self, key: u64) -> Option<u64> {
        self.clock += 1;
        let entry = self.entries.get_mut(&key)?;
        entry.used = self.clock;
        self.queue.push_back((key, self.clock));
        Some(entry.value.digest())
    }

    fn insert(&mut self, key: u64, value: Block) {
        self.bytes += value.size();
        self.entries.insert(key, Entry { value, used: self.clock });
        self.queue.push_back((key, self.clock));
        while self.bytes > CAPACITY {
            let Some((oldest, used)) = self.queue.pop_front() else { return };
            if self.entries.get(&oldest).is_some_and(|entry| entry.used == used) {
                let entry = self.entries.remove(&oldest);
                self.bytes -= entry.map_or(0, |entry| entry.value.size());
            }
        }
    }
}
