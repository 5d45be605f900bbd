//! For a person: totals, tiers, the classes and threads that hold the most.

use super::{ClassStats, Out, Reason, Snapshot, Stats};
use crate::config::Pool;
use crate::report;

/// Classes and threads that get a line of their own.
const CLASSES: usize = 20;
const THREADS: usize = 10;

pub(super) fn write(snapshot: &Snapshot, reason: Reason, out: &mut Out<'_>) {
    let stats = &snapshot.totals;
    out.text("tiermalloc: the heap of ");
    report::with_program(|name| {
        let printable = |&byte: &u8| if matches!(byte, b' '..=b'~') { byte } else { b'?' };
        name.iter().map(printable).for_each(|byte| _ = out.byte(byte));
    });
    out.text(", process ").number(snapshot.process.into());
    out.text(", after ").number(snapshot.uptime_ms / 1000).text(".");
    out.number(snapshot.uptime_ms / 100 % 10).text(" s, pool ").text(snapshot.pool.word());
    out.text(match reason {
        Reason::Call => "\n",
        Reason::Exit => ", at its end\n",
        Reason::Signal => ", at a signal\n",
        Reason::Interval => ", every so often\n",
    });
    if snapshot.pool == Pool::System {
        out.text("  The C library serves: malloc_stats and malloc_info have its figures.\n");
    }
    parts(stats, out);
    events(stats, out);
    classes(snapshot, out);
    threads(snapshot, out);
    if stats.missed > 0 {
        out.text("  Not complete: ").number(stats.missed as u64);
        out.text(" parts were locked by somebody all the time.\n");
    }
}

/// A line of the first table.
fn part<'o, 'a>(out: &'o mut Out<'a>, what: &str, bytes: usize) -> &'o mut Out<'a> {
    out.text("  ").left(what, 24).bytes(bytes as u64, 12)
}

fn parts(stats: &Stats, out: &mut Out<'_>) {
    part(out, "in use", stats.live).grouped(stats.live_objects as u64, 14).text(" objects\n");
    let large = stats.large_count as u64;
    part(out, "  of it large", stats.large).grouped(large, 14).text(" blocks of whole pages\n");
    let huge = stats.huge_count as u64;
    part(out, "  of it huge", stats.huge).grouped(huge, 14).text(" mappings\n");
    let threads = stats.threads as u64;
    part(out, "thread caches", stats.thread_caches).grouped(threads, 14).text(" threads\n");
    part(out, "parked caches", stats.parked_caches).text("\n");
    part(out, "transfer caches", stats.transfer_caches).text("\n");
    part(out, "quarantine", stats.quarantine).text("\n");
    part(out, "free in spans", stats.span_free).grouped(stats.spans as u64, 14).text(" spans\n");
    part(out, "free pages, dirty", stats.free_dirty).text("\n");
    part(out, "free pages, clean", stats.free_clean).text("\n");
    part(out, "metadata", stats.metadata).text("\n");
    part(out, "metadata, unused", stats.metadata_free).text("\n");
    part(out, "address space", stats.mapped).text("   of which may be resident ");
    out.bytes(stats.committed as u64, 0).text("\n");
}

fn events(stats: &Stats, out: &mut Out<'_>) {
    let (counts, waits) = (&stats.counts, &stats.lock_waits);
    out.text("\n  ").left("refills", 24).grouped(counts.refills, 12);
    out.text("   with ").grouped(counts.refilled_objects, 0);
    out.text(" objects, ").grouped(counts.transfer_hits, 0).text(" by a whole batch at hand\n");
    out.text("  ").left("flushes", 24).grouped(counts.flushes, 12);
    out.text("   with ").grouped(counts.flushed_objects, 0);
    out.text(" objects; ").grouped(counts.drained_batches, 0).text(" batches drained to spans\n");
    out.text("  ").left("from the system", 24).bytes(counts.region_bytes as u64, 12);
    out.text("   in ").grouped(counts.regions as u64, 0).text(" regions; ");
    out.grouped(counts.huge_made as u64, 0).text(" huge blocks\n");
    out.text("  ").left("back to the system", 24).bytes(counts.returned as u64, 12);
    out.text("   in ").grouped((counts.decommits + counts.unmaps) as u64, 0);
    out.text(" calls, and with huge blocks\n");
    let all = waits.transfer + waits.spans + waits.pages + waits.registry;
    out.text("  ").left("waits for locks", 24).grouped(all, 12);
    out.text("   transfer caches ").grouped(waits.transfer, 0);
    out.text(", spans ").grouped(waits.spans, 0).text(", pages ").grouped(waits.pages, 0);
    out.text(", threads ").grouped(waits.registry, 0).text("\n");
    out.text("  ").left("threads so far", 24).grouped(counts.threads_ever as u64, 12);
    out.text("   forks ").grouped(counts.forks as u64, 0).text("\n");
}

/// The classes with the most bytes in spans, and a line for all others.
fn classes(snapshot: &Snapshot, out: &mut Out<'_>) {
    if !snapshot.classes().any(ClassStats::is_used) {
        return;
    }
    out.text("\n      size      in use     objects      cached    free in spans    spans  used");
    out.text("     refills     flushes   waits\n");
    // Without a place to sort in: each time the largest below the last one, by bytes and then by number.
    let key = |class: &ClassStats| (class.span_bytes, class.id);
    let mut last = (usize::MAX, usize::MAX);
    for _ in 0..CLASSES {
        let next = snapshot.classes().filter(|c| c.is_used() && key(c) < last);
        let Some(class) = next.max_by_key(|class| key(class)) else { return };
        last = key(class);
        out.grouped(class.size as u64, 10);
        row(out, &Row::of(class));
    }
    let mut rest = Row::default();
    let mut count = 0;
    for class in snapshot.classes().filter(|c| c.is_used() && key(c) < last) {
        rest.add(&Row::of(class));
        count += 1;
    }
    if count > 0 {
        out.number(count).text(if count > 9 { " others" } else { "  others" });
        out.text(if count > 99 { "" } else { " " });
        row(out, &rest);
    }
}

/// What a line of the table of classes shows.
#[derive(Default)]
struct Row {
    live: u64,
    objects: u64,
    cached: u64,
    free: u64,
    spans: u64,
    bytes: u64,
    refills: u64,
    flushes: u64,
    waits: u64,
}

impl Row {
    fn of(class: &ClassStats) -> Self {
        Self {
            live: (class.live_objects * class.size) as u64,
            objects: class.live_objects as u64,
            cached: (class.cached_objects() * class.size) as u64,
            free: ((class.free_objects + class.fresh_objects) * class.size + class.tail_waste)
                as u64,
            spans: class.spans as u64,
            bytes: class.span_bytes as u64,
            refills: class.refills,
            flushes: class.flushes,
            waits: class.transfer_waits + class.span_waits,
        }
    }

    fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.objects += other.objects;
        self.cached += other.cached;
        self.free += other.free;
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.refills += other.refills;
        self.flushes += other.flushes;
        self.waits += other.waits;
    }
}

fn row(out: &mut Out<'_>, row: &Row) {
    out.bytes(row.live, 12).grouped(row.objects, 12).bytes(row.cached, 12).bytes(row.free, 17);
    out.grouped(row.spans, 9).number_right(row.live * 100 / row.bytes.max(1), 5).text("%");
    out.grouped(row.refills, 12).grouped(row.flushes, 12).grouped(row.waits, 8).text("\n");
}

fn threads(snapshot: &Snapshot, out: &mut Out<'_>) {
    if snapshot.threads().is_empty() {
        return;
    }
    out.text("\n    thread      cached    room for       refills       flushes\n");
    for thread in snapshot.threads().iter().take(THREADS) {
        out.number_right(thread.thread.into(), 10).bytes(thread.cached as u64, 12);
        out.bytes(thread.room as u64, 12).grouped(thread.refills, 14);
        out.grouped(thread.flushes, 14).text("\n");
    }
    let more = snapshot.totals.threads.saturating_sub(THREADS);
    if more > 0 {
        out.text("  and ").grouped(more as u64, 0).text(" more with less\n");
    }
}
