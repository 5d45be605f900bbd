//! Fixed-size objects from chunks, last in first out, without ever calling a general allocator.
//!
//! An allocator cannot allocate its own records from itself. This pool takes memory in chunks from
//! a [`ChunkSource`] (usually the operating system), cuts it into objects of one layout, and keeps
//! returned objects on a list threaded through the objects themselves. Chunks stay until the pool
//! is dropped.
//!
//! - [`RawPool`]: untyped, one owner, no lock: what the page heap keeps its span records in.
//! - [`Pool`]: typed, shared between threads, entirely safe: for everybody else.
//!
//! ```
//! use tiermalloc_object_pool::{OsChunks, Pool};
//!
//! let pool: Pool<[u64; 8], _> = Pool::new(OsChunks);
//! let mut record = pool.insert([0; 8]).expect("memory");
//! record[3] = 42;
//! assert_eq!(pool.live(), 1);
//! drop(record); // goes back to the pool
//! assert_eq!(pool.live(), 0);
//! ```
//!
//! # Invariants
//! - P1: every object is either handed out, or on the free list once, or beyond `bump`.
//! - P2: the first word of an object on the free list is the pool's; nothing else touches it.
//! - P3: chunks are only freed when the pool is dropped or [`RawPool::release`]d.
//!
//! Locks: [`Pool`] has one, held for a few instructions, but for a chunk's system call.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(feature = "memmap2")]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod pool;
mod raw;
mod source;

pub use pool::{Pool, Pooled};
pub use raw::RawPool;
#[cfg(feature = "memmap2")]
pub use source::MemmapChunks;
pub use source::{ChunkSource, OsChunks};
