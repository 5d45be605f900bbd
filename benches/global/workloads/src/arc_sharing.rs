//! Reference-counted objects that threads share: the last one to let go frees, whoever that is.
//!
//! A table of 4,096 places holds an `Arc` each; threads read places, keep what they found for a while,
//! and put new objects into them, as programs do that publish snapshots of their configuration or
//! state.

use std::sync::{Arc, Mutex};

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "arc-sharing", about: "shared objects, freed by whoever is last", run };

/// Places in the table.
const PLACES: usize = 4096;
/// Objects that a thread keeps for a while.
const KEPT: usize = 512;

/// An object that knows what it must look like.
struct Shared {
    id: u64,
    check: u64,
    data: Vec<u64>,
}

impl Shared {
    fn new(id: u64) -> Arc<Self> {
        let data = (0..1 + id % 12).map(|i| id ^ i).collect();
        Arc::new(Self { id, check: mix(id), data })
    }

    fn is_whole(&self) -> bool {
        self.check == mix(self.id) && self.data.iter().zip(0..).all(|(x, i)| *x == self.id ^ i)
    }
}

fn run(params: &Params) -> u64 {
    let table: Vec<_> = (0..PLACES as u64).map(|id| Mutex::new(Shared::new(id))).collect();
    let rounds = params.times(16_000_000) / params.threads;
    params.on_threads(|thread| work(&table, &mut Rng::new(0xa9c5, thread), rounds))
}

/// What a thread reads is a matter of chance; its checksum is of what it wrote, and that all it read
/// was whole.
fn work(table: &[Mutex<Arc<Shared>>], rng: &mut Rng, rounds: usize) -> u64 {
    let mut kept: Vec<Option<Arc<Shared>>> = vec![None; KEPT];
    let mut sum = 0;
    for _ in 0..rounds {
        let bits = rng.bits();
        let place = &table[bits as usize % PLACES];
        if (bits >> 32) % 2 == 0 {
            let new = Shared::new(bits);
            sum = add(sum, new.check);
            let old = std::mem::replace(&mut *place.lock().expect("nobody panics"), new);
            sum = add(sum, u64::from(old.is_whole()));
        } else {
            let found = place.lock().expect("nobody panics").clone();
            sum = add(sum, u64::from(found.is_whole()));
            kept[(bits >> 40) as usize % KEPT] = Some(found);
        }
    }
    sum
}
