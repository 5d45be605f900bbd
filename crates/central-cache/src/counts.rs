//! What has happened to a class since the start, and what its spans look like.
//!
//! Counted where a lock is held anyway, in steps that move a batch or a chain; what can be derived from other
//! numbers is.

#[cfg(not(tiermalloc_loom))]
use tiermalloc_page_heap::RawLock;
#[cfg(not(tiermalloc_loom))]
use tiermalloc_size_class::Class;
#[cfg(not(tiermalloc_loom))]
use tiermalloc_sync::{CountsWaits, Patience, lock_within, waits};

#[cfg(not(tiermalloc_loom))]
use crate::CentralCache;
#[cfg(not(tiermalloc_loom))]
use crate::shard::PerClass;
use crate::spans::GROUPS;

/// How full the spans of a class are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// Spans by the eighths of them that are handed out: the first number counts those below an eighth, the
    /// last but one those from seven eighths on, and the last the full ones.
    pub by_eighths: [usize; GROUPS + 1],
    /// Objects at the ends of spans that were never handed out.
    pub never_taken: usize,
    /// Pages of spans that nobody has touched since they were zero.
    pub untouched_pages: usize,
}

/// What a class holds and what has happened to it since the start. Objects in the transfer cache count as
/// out of their spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassCounts {
    /// Spans of the class.
    pub spans: usize,
    /// Objects outside the spans: in the program, in threads' caches and in the transfer cache.
    pub out: usize,
    /// Objects in the transfer cache.
    pub transfer: usize,
    /// Chains that were fetched: from the transfer cache, a batch each, and from spans.
    pub fetches: u64,
    /// Objects in them.
    pub fetched: u64,
    /// Chains that were stored: into the transfer cache, a batch each, and into spans.
    pub stores: u64,
    /// Objects in them.
    pub stored: u64,
    /// Of the fetched chains, those that came from the transfer cache.
    pub transfer_hits: u64,
    /// Batches that went on from the transfer cache to the spans, because nobody wanted them.
    pub drained: u64,
    /// How often somebody found the lock of the transfer cache taken.
    pub transfer_waits: u32,
    /// How often somebody found the lock of the spans taken.
    pub span_waits: u32,
    /// How full the spans are, if that was asked for.
    pub survey: Survey,
}

#[cfg(not(tiermalloc_loom))]
impl<R: RawLock + CountsWaits, S> CentralCache<R, S> {
    /// What `class` holds and what has happened to it, in all shards; `None`: somebody holds one of its locks for
    /// longer than the caller has patience.
    ///
    /// Cost: two locks a shard; with `survey` some nanoseconds for each span that has a free object, under the second.
    pub fn counts(
        &self,
        class: Class,
        survey: bool,
        patience: &mut Patience,
    ) -> Option<ClassCounts> {
        let mut all = ClassCounts::default();
        for shard in self.each_shard() {
            let counts = counts_of(&shard.shard().classes[class.id()], class, survey, patience)?;
            all.add(&counts);
        }
        Some(all)
    }
}

#[cfg(not(tiermalloc_loom))]
impl ClassCounts {
    fn add(&mut self, other: &Self) {
        self.spans += other.spans;
        self.out += other.out;
        self.transfer += other.transfer;
        self.fetches += other.fetches;
        self.fetched += other.fetched;
        self.stores += other.stores;
        self.stored += other.stored;
        self.transfer_hits += other.transfer_hits;
        self.drained += other.drained;
        self.transfer_waits = self.transfer_waits.saturating_add(other.transfer_waits);
        self.span_waits = self.span_waits.saturating_add(other.span_waits);
        for (spans, more) in self.survey.by_eighths.iter_mut().zip(other.survey.by_eighths) {
            *spans += more;
        }
        self.survey.never_taken += other.survey.never_taken;
        self.survey.untouched_pages += other.survey.untouched_pages;
    }
}

/// [`CentralCache::counts`] of one shard.
#[cfg(not(tiermalloc_loom))]
fn counts_of<R: RawLock + CountsWaits>(
    per_class: &PerClass<R>,
    class: Class,
    survey: bool,
    patience: &mut Patience,
) -> Option<ClassCounts> {
    let batch = class.batch() as u64;
    let (held, inserted, drained) = {
        let transfer = lock_within(&per_class.transfer, patience)?;
        (transfer.batches(), transfer.inserted, transfer.drained)
    };
    let spans = lock_within(&per_class.spans, patience)?;
    let hits = inserted - drained - held as u64;
    // What the spans have given and got, but for what came and went by way of the transfer cache.
    let put = spans.taken - spans.live as u64;
    Some(ClassCounts {
        spans: spans.spans as usize,
        out: spans.live,
        transfer: held * class.batch(),
        fetches: hits + spans.fetches,
        fetched: hits * batch + spans.taken,
        // Not below nothing, for what was drained was inserted. It may have come home to another shard and count there.
        stores: inserted + spans.stores - drained,
        stored: (inserted * batch + put).saturating_sub(drained * batch),
        transfer_hits: hits,
        drained,
        transfer_waits: waits(&per_class.transfer),
        span_waits: waits(&per_class.spans),
        survey: if survey { spans.survey() } else { Survey::default() },
    })
}
