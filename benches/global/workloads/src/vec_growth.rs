//! Vectors that grow by `push`: doubling `realloc`s of one block that is alone, and of many at once.
//!
//! Growing alone can be done in place or by moving pages; growing by turns puts the blocks into each
//! other's way. Three rounds: one vector to 64 MiB, 64 vectors to 256 KiB by turns, 20,000 to at most
//! 2 KiB one after the other.

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "vec-growth", about: "vectors growing by push (realloc)", run };

fn run(params: &Params) -> u64 {
    [large(params), by_turns(params), small(params)].into_iter().fold(0, add)
}

fn large(params: &Params) -> u64 {
    let mut sum = 0;
    for round in 0..6 {
        let mut vec = Vec::new();
        for i in 0..params.times(8 << 20) as u64 {
            vec.push(mix(i ^ round));
        }
        sum = vec.iter().step_by(509).fold(sum, |sum, x| add(sum, *x));
    }
    sum
}

fn by_turns(params: &Params) -> u64 {
    const VECS: usize = 64;
    let mut sum = 0;
    for round in 0..params.times(48) as u64 {
        let mut vecs = vec![Vec::new(); VECS];
        for i in 0..32_768 {
            for vec in &mut vecs {
                vec.push(i ^ round);
            }
        }
        sum = vecs.iter().flat_map(|vec| vec.iter().step_by(511)).fold(sum, |sum, x| add(sum, *x));
    }
    sum
}

fn small(params: &Params) -> u64 {
    let mut rng = Rng::new(0x9209, 0);
    let mut vecs = Vec::new();
    for _ in 0..params.times(600_000) {
        let mut vec = Vec::new();
        for i in 0..rng.octaves(2, 256) as u64 {
            vec.push(i);
        }
        // One in ten stays until the end.
        if rng.below(10) == 0 {
            vecs.push(vec);
        }
    }
    vecs.iter().map(|vec| vec.iter().sum::<u64>()).fold(0, add)
}
