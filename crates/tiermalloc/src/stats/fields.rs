//! The table of all figures: the formats, the C surface and the documentation come from it.

use super::{ClassStats, Stats};

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: objects, spans, calls.
    Number,
}

/// How a figure changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is what is there at the moment.
    Level,
    /// It counts what has happened since the start, and only grows.
    Count,
}

/// A figure of `T`: of the heap, or of a class.
#[derive(Debug)]
pub struct Field<T: 'static> {
    /// As it is called in all formats.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// How it changes.
    pub kind: Kind,
    /// What it is, for a person.
    pub meaning: &'static str,
    /// The figure.
    pub get: fn(&T) -> u64,
}

macro_rules! fields {
    ($type:ty: $($unit:ident $kind:ident $name:literal = $($path:ident).+, $meaning:literal;)+) => {
        [$(Field {
            name: $name,
            unit: Unit::$unit,
            kind: Kind::$kind,
            meaning: $meaning,
            get: |of: &$type| of.$($path).+ as u64,
        }),+]
    };
}

/// The totals, in the order in which they are listed.
pub static TOTAL_FIELDS: [Field<Stats>; 42] = fields! { Stats:
    Bytes Level "live" = live, "in the program's hands, rounded up to size classes and pages";
    Number Level "live_objects" = live_objects, "allocations in the program's hands";
    Bytes Level "slack_most" = slack_most, "most of live that rounding up to size classes may have added";
    Bytes Level "thread_caches" = thread_caches, "in the caches of threads that run";
    Bytes Level "parked_caches" = parked_caches, "in caches that wait for a thread to come";
    Bytes Level "transfer_caches" = transfer_caches, "in transfer caches";
    Bytes Level "quarantine" = quarantine, "freed and kept from being used again, in the pools hardened and guarded";
    Bytes Level "span_free" = span_free, "free objects and tails in spans that also hold live ones";
    Bytes Level "free_dirty" = free_dirty, "free pages that may be resident";
    Bytes Level "free_clean" = free_clean, "free pages that are not resident";
    Bytes Level "metadata" = metadata, "records, page map apart, and threads' caches themselves";
    Bytes Level "metadata_free" = metadata_free, "room for records that is not in use";
    Bytes Level "large" = large, "blocks of whole pages in spans of the heap, part of live";
    Number Level "large_count" = large_count, "blocks of whole pages";
    Bytes Level "huge" = huge, "blocks that are a mapping of their own, part of live";
    Number Level "huge_count" = huge_count, "blocks that are a mapping of their own";
    Bytes Level "mapped" = mapped, "addresses taken from the system: the sum of all parts";
    Bytes Level "committed" = committed, "what of mapped may be resident";
    Number Level "spans" = spans, "spans that serve objects";
    Number Level "threads" = threads, "threads with a cache";
    Number Level "missed" = missed, "parts that could not be looked at";
    Number Count "refills" = counts.refills, "chains of objects from the central cache to threads";
    Number Count "refilled_objects" = counts.refilled_objects, "objects in refills";
    Number Count "transfer_hits" = counts.transfer_hits, "refills by a batch of a transfer cache";
    Number Count "flushes" = counts.flushes, "chains of objects from threads to the central cache";
    Number Count "flushed_objects" = counts.flushed_objects, "objects in flushes";
    Number Count "drained_batches" = counts.drained_batches, "batches from transfer caches to spans";
    Number Count "regions" = counts.regions, "regions taken from the system";
    Bytes Count "grown" = counts.region_bytes, "taken from the system in regions";
    Number Count "decommits" = counts.decommits, "calls that gave pages back and kept their addresses";
    Bytes Count "decommitted" = counts.decommitted, "given back with the addresses kept";
    Number Count "unmaps" = counts.unmaps, "calls that gave pages of regions back, addresses and all";
    Bytes Count "unmapped" = counts.unmapped, "given back, addresses and all";
    Number Count "huge_made" = counts.huge_made, "blocks made as a mapping of their own";
    Bytes Count "huge_returned" = counts.huge_returned, "given back with such blocks";
    Bytes Count "returned" = counts.returned, "given back to the system in any way";
    Number Count "threads_ever" = counts.threads_ever, "threads that have allocated";
    Number Count "forks" = counts.forks, "forks made by this process";
    Number Count "transfer_lock_waits" = lock_waits.transfer, "waits for locks of transfer caches";
    Number Count "span_lock_waits" = lock_waits.spans, "waits for locks of classes' spans";
    Number Count "page_lock_waits" = lock_waits.pages, "waits for the lock of the page heap";
    Number Count "registry_lock_waits" = lock_waits.registry, "waits for the lock of the list of threads";
};

/// The figures of a class, in the order in which they are listed. Bytes are objects times size.
pub static CLASS_FIELDS: [Field<ClassStats>; 20] = fields! { ClassStats:
    Number Level "live_objects" = live_objects, "objects in the program's hands";
    Number Level "thread_objects" = thread_objects, "objects in the caches of threads that run";
    Number Level "parked_objects" = parked_objects, "objects in caches that wait for a thread";
    Number Level "transfer_objects" = transfer_objects, "objects in the transfer cache";
    Number Level "quarantine_objects" = quarantine_objects, "objects in the quarantine";
    Number Level "free_objects" = free_objects, "free objects in spans that were handed out before";
    Number Level "fresh_objects" = fresh_objects, "free objects in spans that never were";
    Number Level "spans" = spans, "spans";
    Bytes Level "in_spans" = span_bytes, "in spans";
    Bytes Level "tail_waste" = tail_waste, "at the ends of spans and in front, where no object lies";
    Bytes Level "untouched" = untouched, "whole pages in spans that nobody has touched";
    Bytes Level "slack_most" = slack_most, "most of an object that its request leaves unused";
    Number Count "refills" = refills, "chains of objects from the central cache to threads";
    Number Count "refilled_objects" = refilled_objects, "objects in refills";
    Number Count "transfer_hits" = transfer_hits, "refills by a batch of the transfer cache";
    Number Count "flushes" = flushes, "chains of objects from threads to the central cache";
    Number Count "flushed_objects" = flushed_objects, "objects in flushes";
    Number Count "drained_batches" = drained_batches, "batches from the transfer cache to spans";
    Number Count "transfer_lock_waits" = transfer_waits, "waits for the lock of the transfer cache";
    Number Count "span_lock_waits" = span_waits, "waits for the lock of the spans";
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_has_a_name_of_its_own_and_a_meaning() {
        let check = |names: std::vec::Vec<(&str, &str)>| {
            for (name, meaning) in &names {
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
                assert!(!name.ends_with("_total") && !name.ends_with("_bytes"), "{name}");
                assert!(!meaning.is_empty() && !meaning.contains(['"', '\\', '\n']), "{name}");
            }
            let distinct: BTreeSet<_> = names.iter().map(|(name, _)| name).collect();
            assert_eq!(distinct.len(), names.len());
        };
        check(TOTAL_FIELDS.iter().map(|f| (f.name, f.meaning)).collect());
        check(CLASS_FIELDS.iter().map(|f| (f.name, f.meaning)).collect());
    }
}
