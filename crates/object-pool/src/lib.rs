//! Fixed-size objects from chunks, last in first out, without a general allocator.
#![no_std]
