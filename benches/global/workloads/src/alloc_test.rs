//! A live set of random size whose members are replaced at random, on one thread.
//!
//! After alloc-test by OLogN Technologies ("Testing memory allocators: ptmalloc2 vs tcmalloc vs hoard
//! vs jemalloc while trying to simulate real-world loads", 2018): sizes whose octaves are equally
//! likely, every object written and read. The set of 30,000 objects fits into the second-level cache's
//! reach, so that allocator work shows and not only misses.

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "alloc-test", about: "random replacement in a live set, one thread", run };

/// Members of the live set.
const LIVE: usize = 30_000;

fn run(params: &Params) -> u64 {
    replace(0, params.times(30_000_000))
}

/// Replaces random members of a live set, or leaves their places empty until the next visit.
pub fn replace(thread: usize, rounds: usize) -> u64 {
    let mut rng = Rng::new(0xa110c, thread);
    let mut live: Vec<Option<Block>> = (0..LIVE).map(|_| None).collect();
    let mut sum = 0;
    for _ in 0..rounds {
        let place = rng.below(LIVE);
        match live[place].take() {
            Some(old) => sum = add(sum, old.digest()),
            None => {
                let size = rng.octaves(8, 1024);
                live[place] = Some(Block::new(size, size as u8));
            }
        }
    }
    sum
}
