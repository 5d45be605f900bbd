//! Hash maps with boxed values: tables that double and are copied, values that come and go at random.
//!
//! One map grows from nothing to 200,000 entries, then lives at that size while random entries are
//! replaced; beside it small maps are made and dropped, as a program does with a map per request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "hash-map", about: "hash maps growing, replacing, dropped", run };

/// Keys are random numbers already; std's own hasher would be most of the time here, and is seeded
/// differently in every run.
#[derive(Default)]
pub struct MixHasher(u64);

impl Hasher for MixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = mix(self.0 ^ key);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map that is the same in every run.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<MixHasher>>;

fn run(params: &Params) -> u64 {
    add(long_lived(params), short_lived(params))
}

fn long_lived(params: &Params) -> u64 {
    let mut rng = Rng::new(0x4a54, 0);
    let mut map: Map<u64, Box<[u64]>> = Map::default();
    let entries = params.times(200_000);
    let mut sum = 0;
    for _ in 0..params.times(6_000_000) {
        let key = rng.below(entries * 2) as u64;
        match map.remove(&key) {
            Some(value) => sum = add(sum, value[0] ^ value.len() as u64),
            None => {
                let value = vec![key; rng.within(1, 16)];
                map.insert(key, value.into_boxed_slice());
            }
        }
    }
    add(sum, map.len() as u64)
}

fn short_lived(params: &Params) -> u64 {
    let mut rng = Rng::new(0x4a55, 0);
    let mut sum = 0;
    for _ in 0..params.times(40_000) {
        let mut map: Map<u64, String> = Map::default();
        for key in 0..rng.octaves(4, 64) as u64 {
            map.insert(mix(key), format!("value of {key}"));
        }
        sum = add(sum, map.values().map(|value| value.len() as u64).sum());
    }
    sum
}
