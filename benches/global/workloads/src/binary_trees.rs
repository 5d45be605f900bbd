//! Binary trees of boxes, made and dropped at once, beside one that lives: the Computer Language
//! Benchmarks Game's binary-trees, after Hans Boehm's GCBench.
//!
//! Nothing but small objects of one size, in the order of a recursion: the purest test of the fast
//! path, and of how an allocator takes back a whole tree at once.

use crate::Workload;
use crate::params::{Params, add};

pub const WORKLOAD: &Workload =
    &Workload { name: "binary-trees", about: "trees of boxes, made and dropped", run };

struct Node {
    children: Option<[Box<Node>; 2]>,
}

/// Depth of the deepest tree at scale 1.
const DEPTH: u32 = 16;

fn run(params: &Params) -> u64 {
    let long_lived = tree(DEPTH);
    let mut sum = 0;
    for depth in (4..=DEPTH).step_by(2) {
        // The same number of nodes at each depth.
        for _ in 0..params.times(80 << (DEPTH - depth)) {
            sum = add(sum, tree(depth).count());
        }
    }
    add(sum, long_lived.count())
}

fn tree(depth: u32) -> Box<Node> {
    let children = (depth > 0).then(|| [tree(depth - 1), tree(depth - 1)]);
    Box::new(Node { children })
}

impl Node {
    fn count(&self) -> u64 {
        match &self.children {
            None => 1,
            Some([left, right]) => 1 + left.count() + right.count(),
        }
    }
}
