//! Zeroed memory of all sizes: `vec![0; n]`, which most programs use for buffers and tables.
//!
//! An allocator that knows fresh pages to be zero need not write them; one that does not writes
//! everything twice. Half of the vectors are filled, the others touched here and there only, as
//! sparse tables are.

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "calloc", about: "zeroed vectors, small to 4 MiB", run };

/// Vectors alive at the same time.
const LIVE: usize = 256;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0xca11, 0);
    let small = replace(&mut rng, params.times(6_000_000), 16, 1024);
    let medium = replace(&mut rng, params.times(120_000), 4096, 65_536);
    let large = replace(&mut rng, params.times(2_000), 262_144, 4 << 20);
    [small, medium, large].into_iter().fold(0, add)
}

/// Replaces random ones of the live vectors by new ones of `low` to `high` bytes.
fn replace(rng: &mut Rng, rounds: usize, low: usize, high: usize) -> u64 {
    let live = LIVE.min((64 << 20) / high).max(8);
    let mut vectors: Vec<Vec<u8>> = vec![Vec::new(); live];
    let mut sum = 0;
    for _ in 0..rounds {
        let bits = rng.bits();
        let mut vector = vec![0_u8; rng.octaves(low, high)];
        // What is not zero here is what somebody else has left behind.
        sum = add(sum, u64::from(vector[bits as usize % vector.len()]));
        if bits % 2 == 0 {
            vector.fill(bits as u8);
        } else {
            let step = vector.len() / 8;
            vector.iter_mut().step_by(step.max(1)).for_each(|byte| *byte = bits as u8);
        }
        sum = add(sum, u64::from(vector[0]) ^ vector.len() as u64);
        vectors[bits as usize % live] = vector;
    }
    sum
}
