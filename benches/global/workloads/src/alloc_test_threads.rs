//! `alloc-test` on every thread at once, each with a live set of its own: what an allocator pays for
//! threads that have nothing to do with each other.

use crate::Workload;
use crate::alloc_test::replace;
use crate::params::Params;

pub const WORKLOAD: &Workload = &Workload {
    name: "alloc-test-threads",
    about: "random replacement in a live set on each thread",
    run,
};

fn run(params: &Params) -> u64 {
    let rounds = params.times(30_000_000) / params.threads;
    params.on_threads(|thread| replace(thread, rounds))
}
