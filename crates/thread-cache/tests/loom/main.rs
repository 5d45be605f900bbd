//! Models of the thread cache: threads that end, that free what others allocated, that take each other's
//! share of the budget, and that fork in the middle of all that, explored by loom in every order in which
//! they can meet. What runs is what ships, down to the page heap.
//!
//! Whoever gets an object, and gives it up, says so to `arena::Hands`, which fails as soon as two have it.
#![cfg(tiermalloc_loom)]

#[path = "../../../central-cache/tests/loom/arena.rs"]
mod arena;
mod budget;
mod ends;
mod fork;
mod orphans;
mod world;
