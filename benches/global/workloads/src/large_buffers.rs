//! Buffers of 4 to 32 MiB, replaced at random: what programs that handle images or columns do.
//!
//! After malloc-large of the mimalloc benchmark suite. Every page is touched, since buffers are there
//! to be filled: what counts is whether an allocator gets its pages from the system anew each time.

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "large-buffers", about: "buffers of 4 to 32 MiB", run };

/// Buffers alive at the same time.
const LIVE: usize = 8;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x1a96, 0);
    let mut buffers: Vec<Option<Block>> = (0..LIVE).map(|_| None).collect();
    let mut sum = 0;
    for round in 0..params.times(300) {
        let place = rng.below(LIVE);
        if let Some(old) = buffers[place].take() {
            sum = add(sum, old.digest());
        }
        buffers[place] = Some(Block::new(rng.within(4 << 20, 32 << 20), round as u8));
    }
    sum
}
