//! A server whose threads hand their objects on to new threads and end.
//!
//! After Larson and Krishnan ("Memory allocation for long-running server applications", 1998): each
//! thread replaces random objects of its array, then starts a successor that inherits the array, and
//! ends. So most objects are freed by another thread than made them, often after that one is gone.

use std::sync::mpsc::{Sender, channel};

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "larson", about: "threads hand their objects to new threads", run };

/// Objects of a thread.
const OBJECTS: usize = 5_000;
/// Replacements in one thread's life.
const ROUNDS: usize = 20_000;

/// What a thread inherits.
struct Estate {
    objects: Vec<Block>,
    rng: Rng,
    /// Threads that follow.
    generations: usize,
    sum: u64,
}

fn run(params: &Params) -> u64 {
    let generations = params.times(800).div_ceil(params.threads);
    let (sender, receiver) = channel();
    for thread in 0..params.threads {
        let mut rng = Rng::new(0x1a95, thread);
        let objects = (0..OBJECTS).map(|_| object(&mut rng)).collect();
        succeed(Estate { objects, rng, generations, sum: 0 }, sender.clone());
    }
    drop(sender);
    // Ends when the last thread of each line has sent its sum and dropped its sender.
    receiver.into_iter().fold(0, add)
}

/// Starts a thread that lives its life and is succeeded.
fn succeed(mut estate: Estate, done: Sender<u64>) {
    std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            let place = estate.rng.below(OBJECTS);
            estate.sum = add(estate.sum, estate.objects[place].digest());
            estate.objects[place] = object(&mut estate.rng);
        }
        match estate.generations.checked_sub(1) {
            Some(generations) => succeed(Estate { generations, ..estate }, done),
            // The receiver lives until every sender is gone.
            None => done.send(estate.sum).expect("somebody waits for the sum"),
        }
    });
}

/// 8 to 1,000 bytes, as in the paper's runs.
fn object(rng: &mut Rng) -> Block {
    let size = rng.within(8, 1000);
    Block::new(size, size as u8)
}
