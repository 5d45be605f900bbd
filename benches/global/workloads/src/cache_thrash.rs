//! Active false sharing: threads that allocate, write and free small objects at the same time.
//!
//! After cache-thrash of Hoard's suite (Berger, McKinley, Blumofe, Wilson, 2000): an allocator that
//! serves two threads from one cache line makes their writes slow, which are most of the work here.

use std::cell::Cell;

use crate::Workload;
use crate::params::{Params, add};

pub const WORKLOAD: &Workload =
    &Workload { name: "cache-thrash", about: "threads write small objects of their own", run };

/// Writes to each object.
const WRITES: u64 = 1_000;

fn run(params: &Params) -> u64 {
    let rounds = params.times(2_000_000) / params.threads;
    params.on_threads(|thread| write_and_free(thread, rounds))
}

/// Allocates an object of 8 bytes, writes it many times, frees it; so many times.
pub fn write_and_free(thread: usize, rounds: usize) -> u64 {
    let mut sum = 0;
    for round in 0..rounds as u64 {
        let object = Box::new(Cell::new(round ^ thread as u64));
        for write in 0..WRITES {
            // Through a black box, or the compiler makes one write of them.
            let object = std::hint::black_box(&*object);
            object.set(object.get().wrapping_add(write));
        }
        sum = add(sum, object.get());
    }
    sum
}
