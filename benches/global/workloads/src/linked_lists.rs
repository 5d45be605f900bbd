//! Long chains of small boxes that are cut and spliced: objects of several ages in every page.
//!
//! 256 lists grow by turns, so that neighbours in a list are far apart in memory; again and again a
//! random list is cut in two and its tail dropped or hung onto another one. Interpreters' environments
//! and queues of messages look like this.

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "linked-lists", about: "long chains of boxes, cut and spliced", run };

/// Lists alive.
const LISTS: usize = 256;

#[derive(Default)]
struct List {
    head: Option<Box<Node>>,
}

/// Names of the payload's lengths differ, so that the nodes are of three sizes.
enum Payload {
    Small(u64),
    Medium([u64; 3]),
    Text(Box<str>),
}

struct Node {
    payload: Payload,
    next: Option<Box<Node>>,
}

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x1157, 0);
    let mut lists: Vec<List> = (0..LISTS).map(|_| List::default()).collect();
    let mut sum = 0;
    for round in 0..params.times(1_500_000) {
        let bits = rng.bits();
        lists[bits as usize % LISTS].push(payload(round as u64, bits));
        if bits >> 53 == 0 {
            let tail = lists[rng.below(LISTS)].cut(rng.below(1 << 13));
            match rng.below(4) {
                0 => lists[rng.below(LISTS)].append(tail),
                _ => sum = add(sum, tail.digest()),
            }
        }
    }
    lists.iter().map(List::digest).fold(sum, add)
}

fn payload(round: u64, bits: u64) -> Payload {
    match bits % 8 {
        0 => Payload::Text("twenty letters or so, and one".into()),
        1 | 2 => Payload::Medium([round, bits, round]),
        _ => Payload::Small(round),
    }
}

impl List {
    fn push(&mut self, payload: Payload) {
        let next = self.head.take();
        self.head = Some(Box::new(Node { payload, next }));
    }

    /// Everything beyond the first `length` nodes.
    fn cut(&mut self, length: usize) -> List {
        let mut place = &mut self.head;
        for _ in 0..length {
            match place {
                Some(node) => place = &mut node.next,
                None => break,
            }
        }
        List { head: place.take() }
    }

    /// Hangs another list in front of this one; walks the other one to its end.
    fn append(&mut self, mut front: List) {
        let mut place = &mut front.head;
        while let Some(node) = place {
            place = &mut node.next;
        }
        *place = self.head.take();
        self.head = front.head.take();
    }

    fn digest(&self) -> u64 {
        let mut sum = 0;
        let mut place = &self.head;
        while let Some(node) = place {
            sum = add(sum, match &node.payload {
                Payload::Small(x) => *x,
                Payload::Medium([a, b, c]) => a ^ b ^ c,
                Payload::Text(text) => text.len() as u64,
            });
            place = &node.next;
        }
        sum
    }
}

/// One node after the other: the recursion that the compiler would make has no room on the stack.
impl Drop for List {
    fn drop(&mut self) {
        let mut next = self.head.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}
