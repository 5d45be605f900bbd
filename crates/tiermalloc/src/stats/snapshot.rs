//! Everything at one moment, kept by value.

use tiermalloc_size_class::{SLOTS, by_size};
use tiermalloc_sync::{Patience, sys};

use super::{Out, Reason, Stats, gather, json, openmetrics, text};
use crate::config::{self, Format, Pool};
use crate::report;

/// Threads that a snapshot has room for: those with the most bytes in their caches.
pub const MOST_THREADS: usize = 64;

/// A size class at one moment. All zero for one that was never used, but for what the class itself is.
///
/// ```text
/// span_bytes = size * (live + thread + parked + transfer + quarantine + free + fresh objects) + tail_waste
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The class's number; 0 in a snapshot that was not taken yet.
    pub id: usize,
    /// Bytes of an object.
    pub size: usize,
    /// Most bytes of an object that the request for it leaves unused, if that asks for no alignment above 16.
    pub slack_most: usize,
    /// Objects in a span.
    pub objects_per_span: usize,
    /// Pages (of 8 KiB) of a span.
    pub pages_per_span: usize,
    /// Objects that move between tiers at once.
    pub batch: usize,
    /// Objects in the program's hands.
    pub live_objects: usize,
    /// Objects in the caches of threads that run.
    pub thread_objects: usize,
    /// Objects in caches that wait for a thread.
    pub parked_objects: usize,
    /// Objects in the transfer cache.
    pub transfer_objects: usize,
    /// Objects in the hardened pool's quarantine.
    pub quarantine_objects: usize,
    /// Objects that are free in spans and have been handed out before.
    pub free_objects: usize,
    /// Objects in spans that were never handed out.
    pub fresh_objects: usize,
    /// Spans.
    pub spans: usize,
    /// Bytes of these spans.
    pub span_bytes: usize,
    /// Bytes at the ends of these spans that no object covers.
    pub tail_waste: usize,
    /// Bytes of whole pages in these spans that nobody has touched.
    pub untouched: usize,
    /// Spans by the eighths of them that are handed out: the first number counts those below an eighth, the
    /// eighth those from seven eighths on, and the ninth the full ones.
    pub occupancy: [u32; 9],
    /// Chains of objects that left the central cache for threads.
    pub refills: u64,
    /// Objects in these chains.
    pub refilled_objects: u64,
    /// Of the refills, those by a whole batch from the transfer cache.
    pub transfer_hits: u64,
    /// Chains of objects that threads sent to the central cache.
    pub flushes: u64,
    /// Objects in these chains.
    pub flushed_objects: u64,
    /// Batches that went on from the transfer cache to the spans, because nobody wanted them.
    pub drained_batches: u64,
    /// How often somebody found the lock of the transfer cache taken.
    pub transfer_waits: u64,
    /// How often somebody found the lock of the spans taken.
    pub span_waits: u64,
}

impl ClassStats {
    // SAFETY: numbers, for which all zero will do.
    const NONE: Self = unsafe { core::mem::zeroed() };

    /// Objects that are free but in no span.
    pub const fn cached_objects(&self) -> usize {
        self.thread_objects + self.parked_objects + self.transfer_objects + self.quarantine_objects
    }

    /// Whether an object of the class was ever handed out.
    pub const fn is_used(&self) -> bool {
        self.refills > 0 || self.spans > 0
    }
}

/// A thread's cache at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadStats {
    /// The kernel's number of the thread.
    pub thread: u32,
    /// Bytes of free objects in its cache.
    pub cached: usize,
    /// Bytes that its bins have room for, those included.
    pub room: usize,
    /// Bytes that the room may grow to before more is claimed from the budget of all threads.
    pub limit: usize,
    /// How often the cache was refilled from the central cache.
    pub refills: u64,
    /// Chains that the cache has sent there.
    pub flushes: u64,
}

impl ThreadStats {
    // SAFETY: as above.
    const NONE: Self = unsafe { core::mem::zeroed() };
}

/// The heap at one moment: totals, every class, and the threads with the largest caches.
///
/// It is some 50 KiB large and allocates nothing: keep it in a `static`, or behind a `Box`.
///
/// ```
/// let mut snapshot = Box::new(tiermalloc::Snapshot::new());
/// snapshot.take();
/// for class in snapshot.classes().filter(|class| class.live_objects > 0) {
///     println!("{} objects of {} bytes", class.live_objects, class.size);
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The process's number.
    pub process: u32,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Milliseconds since the process's first allocation.
    pub uptime_ms: u64,
    /// The pool that serves.
    pub pool: Pool,
    /// The sums.
    pub totals: Stats,
    classes: [ClassStats; SLOTS],
    threads: [ThreadStats; MOST_THREADS],
    thread_count: usize,
}

impl Snapshot {
    /// One that was not taken yet: nothing is in it.
    #[allow(clippy::new_without_default)] // a default would be made on the stack
    pub const fn new() -> Self {
        Self {
            process: 0,
            unix_ms: 0,
            uptime_ms: 0,
            pool: Pool::Tiered,
            totals: Stats::NONE,
            classes: [ClassStats::NONE; SLOTS],
            threads: [ThreadStats::NONE; MOST_THREADS],
            thread_count: 0,
        }
    }

    /// Looks at the heap. What the snapshot held before is forgotten.
    ///
    /// Cost: as for [`stats`](crate::stats()), and some nanoseconds for each span that has a free object, under
    /// the lock of its class.
    pub fn take(&mut self) {
        let mut patience = Patience::ENDLESS;
        self.take_within(&mut patience);
    }

    pub(crate) fn take_within(&mut self, patience: &mut Patience) {
        self.process = sys::process();
        self.unix_ms = report::unix_ms();
        self.uptime_ms = report::uptime_ms();
        self.pool = config::get().pool;
        self.classes.fill(ClassStats::NONE);
        self.thread_count = 0;
        let (classes, threads) = (&mut self.classes, &mut self.threads);
        let count = &mut self.thread_count;
        self.totals = gather::gather(
            true,
            patience,
            &mut |thread| insert(threads, count, thread),
            &mut |class| classes[class.id] = class,
        );
    }

    /// All classes in order of size, also those that were never used.
    pub fn classes(&self) -> impl Iterator<Item = &ClassStats> {
        by_size().map(|class| &self.classes[class.id()])
    }

    /// The threads whose caches hold the most bytes, most first; up to [`MOST_THREADS`] of
    /// `totals.threads`.
    pub fn threads(&self) -> &[ThreadStats] {
        &self.threads[..self.thread_count]
    }

    /// Writes the snapshot, piece by piece, without allocating.
    pub fn write(&self, format: Format, sink: &mut dyn FnMut(&[u8])) {
        self.write_because(Reason::Call, format, sink);
    }

    pub(crate) fn write_because(
        &self,
        reason: Reason,
        format: Format,
        sink: &mut dyn FnMut(&[u8]),
    ) {
        let mut out = Out::new(sink);
        match format {
            Format::Text => text::write(self, reason, &mut out),
            Format::Json => json::write(self, reason, &mut out),
            Format::OpenMetrics => openmetrics::write(self, &mut out),
        }
        out.flush();
    }
}

/// Keeps the threads with the most bytes, in order.
fn insert(threads: &mut [ThreadStats; MOST_THREADS], count: &mut usize, thread: ThreadStats) {
    let place = threads[..*count].partition_point(|other| other.cached >= thread.cached);
    if place == MOST_THREADS {
        return;
    }
    *count = (*count + 1).min(MOST_THREADS);
    threads[place..*count].rotate_right(1);
    threads[place] = thread;
}
