//! Passive false sharing: objects that one thread made side by side are handed to several, and reused.
//!
//! After cache-scratch of Hoard's suite (Berger, McKinley, Blumofe, Wilson, 2000): the main thread
//! allocates one small object a thread. Each thread frees its own, then allocates, writes and frees
//! objects of that size. An allocator that gives a thread back what shares a cache line with another
//! thread's object makes the writes slow.

use std::sync::Mutex;

use crate::Workload;
use crate::cache_thrash::write_and_free;
use crate::params::Params;

pub const WORKLOAD: &Workload =
    &Workload { name: "cache-scratch", about: "objects of one line handed to threads", run };

fn run(params: &Params) -> u64 {
    let rounds = params.times(2_000_000) / params.threads;
    let objects: Vec<_> = (0..params.threads).map(|i| Mutex::new(Some(Box::new(i as u64)))).collect();
    params.on_threads(|thread| {
        let object = objects[thread].lock().expect("nobody panics").take();
        let first = object.map_or(0, |object| *object);
        first + write_and_free(thread, rounds)
    })
}
