//! The exposition format that Prometheus reads: OpenMetrics 1.0.
//!
//! A family for each figure, of the heap and of the classes, the latter with a label for the size. The
//! process's own labels (its number, its host) are whoever collects to add.

use super::{CLASS_FIELDS, Field, Kind, Out, Snapshot, TOTAL_FIELDS, Unit};

pub(super) fn write(snapshot: &Snapshot, out: &mut Out<'_>) {
    out.text("# TYPE tiermalloc info\n# HELP tiermalloc The allocator that serves.\n");
    out.text("tiermalloc_info{version=").quoted(env!("CARGO_PKG_VERSION").as_bytes());
    out.text(",pool=\"").text(snapshot.pool.word()).text("\"} 1\n");
    out.text("# TYPE tiermalloc_uptime_seconds gauge\n# UNIT tiermalloc_uptime_seconds seconds\n");
    out.text("# HELP tiermalloc_uptime_seconds Time since the first allocation.\n");
    out.text("tiermalloc_uptime_seconds ").number(snapshot.uptime_ms / 1000).text(".");
    let ms = snapshot.uptime_ms % 1000;
    out.number(ms / 100).number(ms / 10 % 10).number(ms % 10).text("\n");
    for field in &TOTAL_FIELDS {
        let name = Name { prefix: "tiermalloc_", field };
        name.family(out);
        name.sample(out).text(" ").number((field.get)(&snapshot.totals)).text("\n");
    }
    for field in &CLASS_FIELDS {
        let name = Name { prefix: "tiermalloc_class_", field };
        name.family(out);
        for class in snapshot.classes().filter(|class| class.is_used()) {
            name.sample(out).text("{size=\"").number(class.size as u64).text("\"} ");
            out.number((field.get)(class)).text("\n");
        }
    }
    out.text("# EOF\n");
}

/// The name of a family.
struct Name<T: 'static> {
    prefix: &'static str,
    field: &'static Field<T>,
}

impl<T> Name<T> {
    fn write<'o, 'a>(&self, out: &'o mut Out<'a>) -> &'o mut Out<'a> {
        let unit = if self.field.unit == Unit::Bytes { "_bytes" } else { "" };
        out.text(self.prefix).text(self.field.name).text(unit)
    }

    fn family(&self, out: &mut Out<'_>) {
        let kind = if self.field.kind == Kind::Count { " counter\n" } else { " gauge\n" };
        self.write(out.text("# TYPE ")).text(kind);
        if self.field.unit == Unit::Bytes {
            self.write(out.text("# UNIT ")).text(" bytes\n");
        }
        self.write(out.text("# HELP ")).text(" ").text(self.field.meaning).text("\n");
    }

    fn sample<'o, 'a>(&self, out: &'o mut Out<'a>) -> &'o mut Out<'a> {
        let total = if self.field.kind == Kind::Count { "_total" } else { "" };
        self.write(out).text(total)
    }
}
