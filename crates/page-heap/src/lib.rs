//! The page heap: spans of pages, split on allocation and coalesced on free.
//!
//! It stands between the caches and the operating system. From below it takes regions, in growing
//! steps; above it hands out *spans*, runs of 8 KiB pages: small ones that the central cache carves
//! into objects, and large ones that are an allocation each. The very largest are mappings of their
//! own, which only pass through.
//!
//! # The road of a span
//!
//! ```text
//!               alloc_objects, alloc_large                    free
//!   regions --> [ free sets ] --- split ---> in use ---> coalesce with both neighbours --.
//!      ^             ^  |                                                                |
//!      | grow        |  '-- release: dirty pages go back (MADV_DONTNEED), the span stays |
//!      |             '-------------------------------------------------------------------'
//! ```
//!
//! Free spans are kept in two sets, *dirty* (some pages may be resident) and *clean* (all pages zero
//! and not resident). Dirty ones are used first, so that memory already paid for is used again and
//! the peak stays low; what has stayed dirty and unused for a while goes back.
//!
//! # Invariants
//! - H1: a span's state changes only under the heap's lock, and decides alone whether it may be
//!   merged (see [`span`]). A use count of zero says nothing.
//! - H2: no two free spans are neighbours.
//! - H3: a free span is in the page map with its first and last page only; an object span with every
//!   page, once it has a class and is not [kept](PageHeap::unregister_objects); a large span with its first and last; a huge one with its first.
//! - H4: the pages of all spans and nothing else make up what was reserved.
//! - H5: a page outside a free span's dirty interval is zero.
//! - H6: no allocation leaves more pages committed than the hard limit (`limit`).
//! - H7: a freed large span that waits for the next one is in one slot, and whoever takes it out has it (`waiting`).
//!
//! Locks: one of the heap, under which no system call is made but for metadata (one mapping per
//! thousand spans) and, where an allocation of 2 MiB or more is cut or freed, for up to eight looks at whether such ones
//! are filled ([`PageSource::is_resident`]); before it one of whoever adds a region. The page map is read without them.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(any(test, feature = "memmap2"))]
extern crate std;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod demand;
mod evidence;
mod filled;
mod free_set;
mod grow;
mod heap;
mod huge;
mod limit;
mod lock;
mod memmap;
mod meta;
mod objects;
mod pace;
mod release;
mod resize;
mod run;
mod source;
pub mod span;
mod split;
mod stats;
mod tree;
mod waiting;

pub use heap::{FreeError, PageHeap};
pub use limit::MAP_BYTES;
pub use lock::RawLock;
#[cfg(feature = "memmap2")]
pub use memmap::MemmapPages;
pub use objects::{Past, Put, Putting};
pub use pace::Gone;
pub use release::Look;
pub use source::{HugePages, OsPages, PageSource};
pub use span::{Span, State};
pub use stats::HeapStats;
