//! Short-lived threads that swap objects through shared places: changes of ownership under stress.
//!
//! After mstress of the mimalloc benchmark suite: generations of threads; each thread allocates objects
//! of mixed sizes, keeps some, frees some at once, and swaps some with what another thread, perhaps of
//! an earlier generation, has put into a shared place. What is left at a generation's end stays for
//! the next one.

use std::sync::Mutex;

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "mstress", about: "short-lived threads swap objects", run };

/// Shared places.
const PLACES: usize = 1000;
/// Objects that a thread allocates in its life.
const OBJECTS: usize = 25_000;

type Places = Vec<Mutex<Option<Block>>>;

fn run(params: &Params) -> u64 {
    let places: Places = (0..PLACES).map(|_| Mutex::new(None)).collect();
    let generations = params.times(600).div_ceil(params.threads);
    let mut sum = 0;
    for generation in 0..generations {
        sum = add(sum, params.on_threads(|thread| {
            live(&mut Rng::new(0x357e ^ generation as u64, thread), &places)
        }));
    }
    sum
}

/// What the thread's own objects add up to: which ones it gets by swapping is a matter of chance.
fn live(rng: &mut Rng, places: &Places) -> u64 {
    let mut kept: Vec<Block> = Vec::new();
    let mut sum = 0;
    for _ in 0..OBJECTS {
        // Now and then a large one among many small.
        let size = match rng.below(1000) {
            0 => rng.octaves(8192, 65_536),
            1..20 => rng.octaves(1024, 8192),
            _ => rng.octaves(16, 1024),
        };
        let block = Block::new(size, size as u8);
        sum = add(sum, block.digest());
        match rng.below(4) {
            0 => drop(block),
            1 => {
                let place = rng.below(PLACES);
                let theirs = places[place].lock().expect("nobody panics").replace(block);
                if let Some(theirs) = theirs {
                    assert_eq!(theirs.tag(), theirs.size() as u8, "somebody wrote into it");
                }
            }
            _ if kept.len() > 2000 => {
                let place = rng.below(kept.len());
                kept[place] = block;
            }
            _ => kept.push(block),
        }
    }
    sum
}
