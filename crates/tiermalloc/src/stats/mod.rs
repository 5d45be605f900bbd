//! What the heap holds, and what has happened to it.
//!
//! Nothing here costs anything on a fast path: what the heap holds is seen by looking at it when somebody asks,
//! and events are counted where a lock is held anyway, or by the thread that they happen to.
//!
//! | file | what |
//! |---|---|
//! | here | [`Stats`], the totals |
//! | [`gather`] | the one look at all tiers from which everything comes |
//! | [`snapshot`] | [`Snapshot`]: totals, classes and threads at one moment |
//! | [`fields`] | the table of all figures that the formats share |
//! | [`out`], [`text`], [`json`], [`openmetrics`] | the formats |

mod fields;
mod gather;
mod json;
mod openmetrics;
mod out;
mod snapshot;
mod text;

use tiermalloc_sync::Patience;

pub use fields::{CLASS_FIELDS, Field, Kind, TOTAL_FIELDS, Unit};
pub(crate) use out::Out;
pub use snapshot::{ClassStats, MOST_THREADS, Snapshot, ThreadStats};

/// Why statistics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The program has asked.
    Call,
    /// The program ends, or the library is unloaded.
    Exit,
    /// A signal has come.
    Signal,
    /// It is time.
    Interval,
}

impl Reason {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Interval => "interval",
        }
    }
}

/// The process's heap at one moment, in bytes unless it says otherwise. It is put together tier by tier while
/// other threads go on, so sums may be off by what moved meanwhile. When nothing moves,
///
/// ```text
/// mapped = live + thread_caches + parked_caches + transfer_caches + quarantine + span_free
///        + free_dirty + free_clean + metadata + metadata_free
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// In the program's hands, rounded up to size classes and pages.
    pub live: usize,
    /// Allocations in the program's hands.
    pub live_objects: usize,
    /// Most bytes of `live` that nobody asked for: what rounding up to size classes may have added. Exact
    /// figures would cost each allocation something. Without blocks of whole pages, and without requests for
    /// an alignment above 16 bytes.
    pub slack_most: usize,
    /// In the caches of threads that run.
    pub thread_caches: usize,
    /// In caches that wait for a thread to come.
    pub parked_caches: usize,
    /// In transfer caches.
    pub transfer_caches: usize,
    /// Freed objects that wait in the quarantine of the pools `hardened` and `guarded`.
    pub quarantine: usize,
    /// Free objects and tails in spans that also hold live ones.
    pub span_free: usize,
    /// Free pages that may be resident.
    pub free_dirty: usize,
    /// Free pages that are not resident.
    pub free_clean: usize,
    /// Records, page map apart, and threads' caches themselves.
    pub metadata: usize,
    /// Room for records that is not in use.
    pub metadata_free: usize,
    /// Blocks of whole pages, in spans of the heap. Part of `live`.
    pub large: usize,
    /// Number of these blocks.
    pub large_count: usize,
    /// In huge allocations, each a mapping of its own. Part of `live`.
    pub huge: usize,
    /// Number of huge allocations.
    pub huge_count: usize,
    /// Addresses taken from the system: regions, huge allocations and records.
    pub mapped: usize,
    /// Of `mapped`, what may be resident: all but what is known never to have been touched, or to have gone
    /// back.
    pub committed: usize,
    /// Spans that serve objects.
    pub spans: usize,
    /// Threads with a cache; none in pools that have no such caches.
    pub threads: usize,
    /// What has happened since the start of the process.
    pub counts: Counts,
    /// How often somebody found a lock taken.
    pub lock_waits: LockWaits,
    /// Parts of the heap that could not be looked at because somebody held their lock for too long: 0 unless
    /// the program ends in the middle of an allocation.
    pub missed: usize,
}

impl Stats {
    // SAFETY: numbers, for which all zero will do.
    const NONE: Self = unsafe { core::mem::zeroed() };
}

/// What has happened since the start of the process. A child of a fork goes on from where its parent was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Chains of objects that left the central cache for threads.
    pub refills: u64,
    /// Objects in these chains.
    pub refilled_objects: u64,
    /// Of the refills, those by a whole batch from a transfer cache.
    pub transfer_hits: u64,
    /// Chains of objects that threads sent to the central cache.
    pub flushes: u64,
    /// Objects in these chains.
    pub flushed_objects: u64,
    /// Batches that went on from a transfer cache to the spans, because nobody wanted them.
    pub drained_batches: u64,
    /// Regions taken from the system.
    pub regions: usize,
    /// Bytes of these regions.
    pub region_bytes: usize,
    /// System calls that gave pages back and kept their addresses.
    pub decommits: usize,
    /// Bytes that went back so.
    pub decommitted: usize,
    /// System calls that gave free pages of regions back, addresses and all.
    pub unmaps: usize,
    /// Bytes that went back so.
    pub unmapped: usize,
    /// Huge allocations made.
    pub huge_made: usize,
    /// Bytes of huge allocations that went back with their mappings.
    pub huge_returned: usize,
    /// Bytes that went back to the system in any of these ways.
    pub returned: usize,
    /// Threads that have had a cache or would have, were the pool one with caches.
    pub threads_ever: usize,
    /// Forks made by this process.
    pub forks: usize,
}

/// How often somebody found a lock taken and had to wait, since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockWaits {
    /// Locks of the transfer caches, one for each class.
    pub transfer: u64,
    /// Locks of the classes' spans.
    pub spans: u64,
    /// The lock of the page heap.
    pub pages: u64,
    /// The lock of the list of threads' caches.
    pub registry: u64,
}

/// What the heap holds at this moment.
///
/// Cost: one lock after the other, 208 times two; microseconds, and one for each thread.
pub fn stats() -> Stats {
    let mut patience = Patience::ENDLESS;
    gather::gather(false, &mut patience, &mut |_| {}, &mut |_| {})
}
