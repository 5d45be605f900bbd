//! One JSON object on one line; `docs/statistics.md` describes it.

use super::{CLASS_FIELDS, Field, Out, Reason, Snapshot, TOTAL_FIELDS};
use crate::report;

/// Version of what is written: a larger one may have more members, and none fewer.
const VERSION: u64 = 1;

pub(super) fn write(snapshot: &Snapshot, reason: Reason, out: &mut Out<'_>) {
    out.text("{\"schema\":\"tiermalloc-stats\",\"version\":").number(VERSION);
    out.text(",\"library\":").quoted(env!("CARGO_PKG_VERSION").as_bytes());
    out.text(",\"program\":");
    report::with_program(|name| _ = out.quoted(name));
    out.text(",\"process\":").number(snapshot.process.into());
    out.text(",\"unix_ms\":").number(snapshot.unix_ms);
    out.text(",\"uptime_ms\":").number(snapshot.uptime_ms);
    out.text(",\"pool\":\"").text(snapshot.pool.word());
    out.text("\",\"reason\":\"").text(reason.word());
    out.text("\",\"totals\":{");
    members(&TOTAL_FIELDS, &snapshot.totals, out);
    out.text("},\"classes\":[");
    for (n, class) in snapshot.classes().filter(|class| class.is_used()).enumerate() {
        out.text(if n > 0 { ",{\"size\":" } else { "{\"size\":" }).number(class.size as u64);
        out.text(",\"objects_per_span\":").number(class.objects_per_span as u64);
        out.text(",\"pages_per_span\":").number(class.pages_per_span as u64);
        out.text(",\"batch\":").number(class.batch as u64).text(",");
        members(&CLASS_FIELDS, class, out);
        out.text(",\"occupancy\":[");
        for (n, &spans) in class.occupancy.iter().enumerate() {
            out.text(if n > 0 { "," } else { "" }).number(spans.into());
        }
        out.text("]}");
    }
    out.text("],\"threads\":[");
    for (n, thread) in snapshot.threads().iter().enumerate() {
        out.text(if n > 0 { ",{\"thread\":" } else { "{\"thread\":" }).number(thread.thread.into());
        out.text(",\"cached\":").number(thread.cached as u64);
        out.text(",\"room\":").number(thread.room as u64);
        out.text(",\"limit\":").number(thread.limit as u64);
        out.text(",\"refills\":").number(thread.refills);
        out.text(",\"flushes\":").number(thread.flushes).text("}");
    }
    out.text("]}\n");
}

fn members<T>(fields: &[Field<T>], of: &T, out: &mut Out<'_>) {
    for (n, field) in fields.iter().enumerate() {
        out.text(if n > 0 { ",\"" } else { "\"" }).text(field.name).text("\":");
        out.number((field.get)(of));
    }
}
