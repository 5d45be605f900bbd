//! The document that malloc_info writes: glibc's root and totals, and all figures under their own names.

use facade::{CLASS_FIELDS, Field, Snapshot, TOTAL_FIELDS, Unit};

use crate::info::free_bytes;

/// A number in decimal, into `sink`.
pub(crate) fn number(mut n: u64, sink: &mut dyn FnMut(&[u8])) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while at > 0 && (n > 0 || at == digits.len()) {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    sink(digits.get(at..).unwrap_or_default());
}

/// ` name="number"`
fn attribute(name: &str, n: u64, sink: &mut dyn FnMut(&[u8])) {
    sink(b" ");
    sink(name.as_bytes());
    sink(b"=\"");
    number(n, sink);
    sink(b"\"");
}

fn attributes<T>(fields: &[Field<T>], of: &T, sink: &mut dyn FnMut(&[u8])) {
    for field in fields {
        attribute(field.name, (field.get)(of), sink);
    }
}

/// The whole document.
pub(crate) fn write(snapshot: &Snapshot, sink: &mut dyn FnMut(&[u8])) {
    let stats = &snapshot.totals;
    sink(b"<malloc version=\"1\">\n<tiermalloc pool=\"");
    sink(snapshot.pool.word().as_bytes());
    sink(b"\">\n");
    for field in &TOTAL_FIELDS {
        sink(if field.unit == Unit::Bytes { b"<bytes" } else { b"<count" });
        sink(b" of=\"");
        sink(field.name.as_bytes());
        sink(b"\"");
        attribute("value", (field.get)(stats), sink);
        sink(b"/>\n");
    }
    for class in snapshot.classes().filter(|class| class.is_used()) {
        sink(b"<class");
        attribute("size", class.size as u64, sink);
        attributes(&CLASS_FIELDS, class, sink);
        sink(b"/>\n");
    }
    for thread in snapshot.threads() {
        sink(b"<thread");
        attribute("id", thread.thread.into(), sink);
        attribute("cached", thread.cached as u64, sink);
        attribute("room", thread.room as u64, sink);
        attribute("refills", thread.refills, sink);
        attribute("flushes", thread.flushes, sink);
        sink(b"/>\n");
    }
    sink(b"</tiermalloc>\n<total type=\"rest\" count=\"0\"");
    attribute("size", free_bytes(stats) as u64, sink);
    sink(b"/>\n<total type=\"mmap\"");
    attribute("count", stats.huge_count as u64, sink);
    attribute("size", stats.huge as u64, sink);
    sink(b"/>\n<system type=\"current\"");
    attribute("size", stats.mapped as u64, sink);
    sink(b"/>\n</malloc>\n");
}
