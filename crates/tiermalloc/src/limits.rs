//! Limits as the process has them: what the configuration says, and what may be changed later.
//!
//! The page heap counts and refuses (see its `limit`); here is what the tiers above it do about it.
//!
//! - Above the *soft* limit, which the heap says in a word that costs a load, threads give back what they have
//!   claimed at their next slow step and claim nothing, transfer caches take nothing in, and whoever takes
//!   pages next empties them, with the caches that wait for threads.
//! - At the *hard* limit an allocation that has been refused empties what it can reach, asks all other threads
//!   for what they have claimed, and tries once more. Others answer at their next slow step; a thread that
//!   sleeps does not, so under a hard limit all caches together hold an eighth of it at most.

use tiermalloc_page_heap::HugePages as Wanted;
use tiermalloc_size_class::{Class, PAGE_SIZE};

use crate::config::{self, AUTOMATIC, AtLimit, Config, HugePages};
use crate::slow::certain;
use crate::state::{BUDGET, CENTRAL, REGISTRY, heap};
use crate::{fatal, slow, thread};

/// Bytes that each thread's cache may hold however many there are, as long as a quarter of the total lasts.
const THREAD_FLOOR: usize = 16 << 10;
/// Part of the hard limit that caches may hold.
const CACHED_PART: usize = 8;

/// Bytes that all caches may hold for each processor, if that is left to the machine,
const FOR_A_PROCESSOR: usize = 32 << 20;
/// the least and the most.
const LEAST_FOR_ALL: usize = 128 << 20;
const MOST_FOR_ALL: usize = 1024 << 20;

/// Bytes that all caches may hold on so many processors: as many threads may be busy at a time, each with a cache of its own.
fn cached_by(processors: usize) -> usize {
    processors.saturating_mul(FOR_A_PROCESSOR).clamp(LEAST_FOR_ALL, MOST_FOR_ALL)
}

/// Puts into force what was decided, before there is anything.
pub(crate) fn configure(config: &Config) {
    let processors = thread::count_processors();
    let total = match config.cache_total {
        AUTOMATIC => cached_by(processors),
        bytes => bytes,
    };
    let total = match config.hard_limit {
        0 => total,
        limit => total.min(limit / CACHED_PART),
    };
    BUDGET.configure(total, config.cache_thread.min(total), THREAD_FLOOR);
    let heap = heap();
    heap.source().set_huge_pages(match config.thp {
        HugePages::System => Wanted::System,
        HugePages::Demand => Wanted::Demand,
        HugePages::Never => Wanted::Never,
        HugePages::Advise => Wanted::Advise,
    });
    heap.set_pace(config.release_delay.ms(), config.release_rate);
    heap.set_hard_limit(config.hard_limit);
    heap.set_soft_limit(config.soft_limit);
}

/// See [`crate::set_hard_limit`].
pub(crate) fn set_hard(bytes: usize) -> usize {
    // What was decided does not come later and undo it.
    config::get();
    let before = heap().set_hard_limit(bytes);
    let excess = if bytes > 0 { heap().committed_bytes().saturating_sub(bytes) } else { 0 };
    if excess > 0 {
        slow::flush_own();
        slow::flush_shared();
        REGISTRY.ask_all();
        heap().release_pages(excess.div_ceil(PAGE_SIZE));
    }
    before
}

/// See [`crate::set_soft_limit`].
pub(crate) fn set_soft(bytes: usize) -> usize {
    config::get();
    let before = heap().set_soft_limit(bytes);
    if heap().is_tight() {
        slow::flush_own();
        relieve();
        REGISTRY.ask_all();
    }
    before
}

/// Called when pages were taken above the soft limit: empties what nobody has in his hands.
pub(crate) fn relieve() {
    thread::take_down_parked();
    if CENTRAL.held_bytes() > 0 {
        for class in Class::all() {
            certain(CENTRAL.drain(class, usize::MAX));
        }
    }
    CENTRAL.free_kept_spans();
}

/// Bytes that the transfer caches may hold: what no thread has claimed, but for a quarter.
#[inline]
pub(crate) fn transfer_room() -> usize {
    if heap().is_tight() { 0 } else { BUDGET.unclaimed() / 4 * 3 }
}

/// Whether a request for `bytes` bytes that has failed was refused by the limit, as far as one can tell
/// afterwards.
pub(crate) fn are_why(bytes: usize) -> bool {
    !heap().has_room(bytes)
}

/// Ends the program if a request for `bytes` bytes has failed at the hard limit and it is to end then.
pub(crate) fn abort_if_chosen(bytes: usize) {
    if config::get().at_hard_limit == AtLimit::Abort && are_why(bytes) {
        fatal::hard_limit(bytes, heap().hard_limit(), heap().in_use_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_may_hold_more_on_more_processors() {
        let mib = |processors| cached_by(processors) >> 20;
        assert_eq!(
            [1, 4, 5, 8, 16, 64, usize::MAX].map(mib),
            [128, 128, 160, 256, 512, 1024, 1024]
        );
    }
}
