//! Futures in boxes on a small executor: each task is an allocation of its own size that outlives the
//! code that made it.
//!
//! What asynchronous programs do: tasks of some hundred bytes to some kilobytes wait in a queue, are
//! polled a few times, make children and buffers, and end in no particular order. No slab, no pool:
//! every task is a `Box` that comes and goes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "tasks", about: "boxed futures of many sizes on an executor", run };

type Task = Pin<Box<dyn Future<Output = u64>>>;

/// Tasks that wait at the same time.
const WAITING: usize = 10_000;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x7a5c, 0);
    let mut left = params.times(3_000_000);
    let mut queue: VecDeque<Task> = VecDeque::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut sum = 0;
    loop {
        while left > 0 && queue.len() < WAITING {
            queue.push_back(task(rng.bits()));
            left -= 1;
        }
        let Some(mut task) = queue.pop_front() else { return sum };
        match task.as_mut().poll(&mut context) {
            Poll::Ready(value) => sum = add(sum, value),
            Poll::Pending => queue.push_back(task),
        }
    }
}

/// One of four kinds, so that there are futures of four sizes.
fn task(seed: u64) -> Task {
    match seed % 8 {
        0..=3 => Box::pin(timer(seed)),
        4 | 5 => Box::pin(request::<64>(seed)),
        6 => Box::pin(request::<512>(seed)),
        _ => Box::pin(parent(seed)),
    }
}

/// Waits a few turns.
async fn timer(seed: u64) -> u64 {
    turns(1 + seed as u32 % 5).await;
    seed
}

/// Fills a buffer in its own frame, waits, and answers with a heap buffer.
async fn request<const SIZE: usize>(seed: u64) -> u64 {
    let frame = [seed as u8; SIZE];
    turns(1 + (seed >> 8) as u32 % 3).await;
    let mut answer = Vec::new();
    for chunk in frame.chunks(16) {
        answer.extend_from_slice(chunk);
        if answer.len() % 256 == 0 {
            turns(1).await;
        }
    }
    answer.iter().map(|byte| u64::from(*byte)).sum()
}

/// Waits for children that are tasks of their own.
async fn parent(seed: u64) -> u64 {
    let mut children: Vec<Task> = Vec::new();
    for child in 0..2 + (seed >> 16) % 3 {
        children.push(Box::pin(timer(seed.wrapping_mul(child + 3))));
    }
    let mut sum = 0;
    for child in children {
        sum = add(sum, child.await);
    }
    sum
}

/// A future that is pending so many times.
fn turns(count: u32) -> impl Future<Output = ()> {
    let mut left = count;
    std::future::poll_fn(move |_| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
}
