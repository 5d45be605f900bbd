//! A quarter of a gigabyte of small and medium objects alive, and random ones of them replaced: what a
//! database's or a cache's heap is like.
//!
//! Every replacement frees an object that nobody has looked at for long, in a page that nobody has
//! looked at for long: the cost is that of cache and TLB misses, the allocator's own among them.

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "live-heap", about: "256 MiB alive, random replacement", run };

/// Bytes alive at scale 1.
const LIVE: usize = 256 << 20;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x11fe, 0);
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while bytes < params.times(LIVE) {
        let block = block(&mut rng);
        bytes += block.size();
        blocks.push(block);
    }
    let mut sum = blocks.len() as u64;
    for _ in 0..params.times(2_000_000) {
        let place = rng.below(blocks.len());
        sum = add(sum, blocks[place].digest());
        blocks[place] = block(&mut rng);
    }
    sum
}

/// 16 to 2,048 bytes, small ones most often.
fn block(rng: &mut Rng) -> Block {
    let size = rng.octaves(16, 2048);
    Block::new(size, size as u8)
}
