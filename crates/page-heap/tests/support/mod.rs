//! What the tests of the heap share: a source of pages that can fail, and a model to compare with.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod arena;
pub mod model;
