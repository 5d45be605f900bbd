//! Very many threads that live for 200 small objects each: what an allocator pays for a thread.
//!
//! Servers with a thread per request, and build tools, do this. Time goes into making and giving up
//! caches; resident memory shows whether threads that are gone leave something behind.

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "thread-churn", about: "threads that live for 200 objects", run };

/// Threads alive at the same time, whatever `--threads` says: most of them wait.
const GROUP: usize = 64;
/// Objects that each allocates and frees.
const OBJECTS: usize = 200;

fn run(params: &Params) -> u64 {
    let group = Params { scale: params.scale, threads: GROUP };
    let mut sum = 0;
    for round in 0..params.times(150) {
        sum = add(sum, group.on_threads(|thread| live(&mut Rng::new(round as u64, thread))));
    }
    sum
}

fn live(rng: &mut Rng) -> u64 {
    let objects: Vec<Block> = (0..OBJECTS)
        .map(|_| {
            let size = rng.octaves(16, 512);
            Block::new(size, size as u8)
        })
        .collect();
    objects.iter().map(Block::digest).fold(0, add)
}
