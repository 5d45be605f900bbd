//! Boxed trait objects of many sizes in a graph that changes: expression trees that are evaluated,
//! rewritten and dropped, as compilers and query planners have them.
//!
//! A pool of 4,096 expressions; each round combines some of them into a new one, or replaces one by a
//! leaf. Node types have 16 to 120 bytes, and who frees what is a matter of reference counts.

use std::rc::Rc;

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "dyn-graph", about: "trait objects of many sizes, shared and rewritten", run };

/// Something that has a value and a depth.
trait Node {
    fn value(&self) -> u64;
    fn depth(&self) -> u32;
}

type Shared = Rc<dyn Node>;

struct Constant(u64);

struct Sum {
    depth: u32,
    terms: Vec<Shared>,
}

struct Product {
    depth: u32,
    factors: [Shared; 2],
    cached: u64,
}

struct Table {
    depth: u32,
    inputs: [Shared; 3],
    values: [u64; 8],
}

struct Boxed(Box<dyn Node>);

impl Node for Constant {
    fn value(&self) -> u64 {
        self.0
    }
    fn depth(&self) -> u32 {
        0
    }
}

impl Node for Sum {
    fn value(&self) -> u64 {
        self.terms.iter().map(|term| term.depth() as u64).fold(self.terms.len() as u64, add)
    }
    fn depth(&self) -> u32 {
        self.depth
    }
}

impl Node for Product {
    fn value(&self) -> u64 {
        self.cached ^ self.factors[0].depth() as u64
    }
    fn depth(&self) -> u32 {
        self.depth
    }
}

impl Node for Table {
    fn value(&self) -> u64 {
        self.values[self.inputs[0].depth() as usize % 8]
    }
    fn depth(&self) -> u32 {
        self.depth
    }
}

impl Node for Boxed {
    fn value(&self) -> u64 {
        self.0.value() + 1
    }
    fn depth(&self) -> u32 {
        self.0.depth()
    }
}

/// Expressions alive by name.
const POOL: usize = 4096;
/// Deeper ones are not built upon, so that dropping one does not run out of stack.
const DEEPEST: u32 = 24;

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0xd94f, 0);
    let mut pool: Vec<Shared> = (0..POOL).map(|i| Rc::new(Constant(i as u64)) as Shared).collect();
    let mut sum = 0;
    for _ in 0..params.times(8_000_000) {
        let made = node(&mut rng, &pool);
        sum = mix(sum ^ made.value());
        let place = rng.below(POOL);
        pool[place] = made;
    }
    pool.iter().map(|node| node.value()).fold(sum, add)
}

fn node(rng: &mut Rng, pool: &[Shared]) -> Shared {
    let bits = rng.bits();
    let pick = |shift: u32| &pool[(bits >> shift) as usize % POOL];
    let inputs = [pick(8), pick(20), pick(32)];
    let depth = 1 + inputs.iter().map(|node| node.depth()).max().unwrap_or(0);
    if depth > DEEPEST {
        return Rc::new(Constant(bits));
    }
    match bits % 8 {
        0 | 1 => Rc::new(Constant(bits)),
        2 | 3 => {
            let terms = (0..1 + bits % 7).map(|i| pick(8 + 3 * i as u32).clone()).collect::<Vec<_>>();
            let depth = 1 + terms.iter().map(|node| node.depth()).max().unwrap_or(0);
            Rc::new(Sum { depth, terms })
        }
        4 | 5 => {
            let factors = [inputs[0].clone(), inputs[1].clone()];
            Rc::new(Product { depth, factors, cached: bits })
        }
        6 => Rc::new(Table { depth, inputs: inputs.map(Rc::clone), values: [bits; 8] }),
        _ => Rc::new(Boxed(Box::new(Constant(bits)))),
    }
}
