//! One side allocates, the other frees: threads that only do the one or the other.
//!
//! After xmalloc-test by Lever and Boreham ("malloc() performance in a multithreaded Linux
//! environment", 2000): producers fill batches of 120 objects and pass them on, consumers read and free
//! them. Memory can only come back to the producers if the allocator carries it there.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::Workload;
use crate::block::Block;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "xmalloc", about: "one thread allocates, another frees", run };

/// Objects of a batch.
const BATCH: usize = 120;
/// Batches that wait in a queue at most.
const QUEUE: usize = 64;

type Batch = Vec<Block>;

fn run(params: &Params) -> u64 {
    // Threads work in pairs; an odd one stays at home.
    let pairs = (params.threads / 2).max(1);
    let batches = params.times(200_000) / pairs;
    std::thread::scope(|scope| {
        let mut consumers = Vec::new();
        for pair in 0..pairs {
            let (sender, receiver) = sync_channel(QUEUE);
            scope.spawn(move || produce(pair, batches, &sender));
            consumers.push(scope.spawn(move || consume(&receiver)));
        }
        consumers.into_iter().map(|c| c.join().expect("a consumer panicked")).fold(0, add)
    })
}

fn produce(pair: usize, batches: usize, queue: &SyncSender<Batch>) {
    let mut rng = Rng::new(0x0a11, pair);
    for _ in 0..batches {
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let size = rng.octaves(16, 512);
            batch.push(Block::new(size, size as u8));
        }
        queue.send(batch).expect("the consumer waits until the producer is gone");
    }
}

fn consume(queue: &Receiver<Batch>) -> u64 {
    queue.iter().flatten().map(|block| block.digest()).fold(0, add)
}
