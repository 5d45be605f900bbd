//! Ordered maps with strings for keys: nodes of a few hundred bytes that split and merge, and small
//! keys among them.
//!
//! What an index in memory does: it fills, then entries leave at one end and come in at random.

use std::collections::BTreeMap;

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "btree-map", about: "ordered maps of strings, splitting and merging", run };

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0xb7ee, 0);
    let entries = params.times(100_000);
    let mut map: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut sum = 0;
    for round in 0..params.times(1_500_000) {
        let bits = rng.bits();
        map.entry(format!("{:x}", bits >> (bits % 24))).or_default().push(round as u32);
        if map.len() <= entries {
            continue;
        }
        // Every other time the smallest leaves, else one from the middle.
        let left = if round % 2 == 0 {
            map.pop_first()
        } else {
            let key = map.range(format!("{:x}", rng.bits())..).next().map(|(key, _)| key.clone());
            key.and_then(|key| map.remove_entry(&key))
        };
        if let Some((key, values)) = left {
            sum = add(sum, (key.len() * values.len()) as u64 + u64::from(values[0]));
        }
    }
    add(sum, map.values().map(|values| u64::from(values[0])).fold(0, add))
}
