mkdir -p crate/src crate/tests
cd crate
cat >Cargo.toml <<'TOML'
[package]
name = "small"
version = "0.1.0"
edition = "2021"

[workspace]
TOML
cat >src/lib.rs <<'RS'
//! Generic code for the compiler to chew on.
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

/// Counts what is in a sequence.
pub fn count<T: Ord + Clone + Debug>(items: &[T]) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item.clone()).or_insert(0) += 1;
    }
    counts
}

/// An expression that evaluates to a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// A number.
    Number(i64),
    /// A sum.
    Add(Box<Expr>, Box<Expr>),
    /// A product.
    Mul(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// A tree of this depth.
    pub fn tree(depth: u32) -> Self {
        match depth {
            0 => Self::Number(2),
            d if d % 2 == 0 => Self::Add(Box::new(Self::tree(d - 1)), Box::new(Self::tree(d - 1))),
            d => Self::Mul(Box::new(Self::tree(d - 1)), Box::new(Self::Number(1))),
        }
    }

    /// Its value.
    pub fn value(&self) -> i64 {
        match self {
            Self::Number(n) => *n,
            Self::Add(a, b) => a.value() + b.value(),
            Self::Mul(a, b) => a.value() * b.value(),
        }
    }
}

/// Words by length.
pub fn by_length(text: &str) -> HashMap<usize, Vec<String>> {
    let mut map: HashMap<usize, Vec<String>> = HashMap::new();
    for word in text.split_whitespace() {
        map.entry(word.len()).or_default().push(word.to_owned());
    }
    map
}
RS
cat >src/main.rs <<'RS'
use std::thread;

fn main() {
    let threads: Vec<_> = (0..4u32)
        .map(|n| thread::spawn(move || small::Expr::tree(18 + n % 2).value()))
        .collect();
    for thread in threads {
        println!("{}", thread.join().unwrap());
    }
    let text: String = (0..5000).map(|i| format!("{} ", "w".repeat(i % 13))).collect();
    let mut lengths: Vec<_> = small::by_length(&text).into_iter().map(|(k, v)| (k, v.len())).collect();
    lengths.sort();
    println!("{lengths:?}");
    println!("{:?}", small::count(&(0..1000).map(|i| i * i % 17).collect::<Vec<_>>()));
}
RS
cat >tests/all.rs <<'RS'
#[test]
fn trees_add_up() {
    assert_eq!(small::Expr::tree(4).value(), 8);
}
RS
cargo build --quiet --offline --release
cargo run --quiet --offline --release
cargo test --quiet --offline 2>&1 | grep 'test result' | sed 's/; finished in.*//'
cargo metadata --quiet --offline --no-deps --format-version 1 | grep -c '"name":"small"'
