//! Statistics as tables of text.

use std::fmt::Write;

use super::record::{Class, Record};
use super::units::{bytes, difference, grouped};

/// Classes that are shown unless all are asked for.
const CLASSES: usize = 20;
const THREADS: usize = 10;
/// Columns of the bar that shows a part of the whole.
const BAR: u64 = 30;

/// Where bytes are: the name in the record, and for people. Together they are all that is mapped.
pub const PARTS: [(&str, &str); 10] = [
    ("live", "in use"),
    ("thread_caches", "thread caches"),
    ("parked_caches", "parked caches"),
    ("transfer_caches", "transfer caches"),
    ("quarantine", "quarantine"),
    ("span_free", "free in spans"),
    ("free_dirty", "free pages, dirty"),
    ("free_clean", "free pages, clean"),
    ("metadata", "metadata"),
    ("metadata_free", "metadata, unused"),
];

/// Further bytes worth a line.
const MORE: [(&str, &str); 5] = [
    ("mapped", "address space"),
    ("committed", "may be resident"),
    ("slack_most", "rounding, at most"),
    ("grown", "from the system so far"),
    ("returned", "back to the system so far"),
];

/// Numbers worth a line.
const NUMBERS: [(&str, &str); 12] = [
    ("live_objects", "objects in use"),
    ("spans", "spans"),
    ("threads", "threads with a cache"),
    ("threads_ever", "threads so far"),
    ("refills", "refills"),
    ("transfer_hits", "refills by a batch"),
    ("flushes", "flushes"),
    ("drained_batches", "batches drained"),
    ("transfer_lock_waits", "waits: transfer caches"),
    ("span_lock_waits", "waits: spans"),
    ("page_lock_waits", "waits: page heap"),
    ("registry_lock_waits", "waits: threads"),
];

// Writing to a String cannot fail; the results of `writeln!` say nothing.

/// One moment.
pub fn show(record: &Record, all: bool) -> String {
    let mut text = format!("{}\n\n", record.title());
    let mapped = record.total("mapped").max(1);
    for (name, what) in PARTS {
        let n = record.total(name);
        let share = u128::from(n) * 100 / u128::from(mapped);
        let bar = (u128::from(n) * u128::from(BAR)).div_ceil(u128::from(mapped)).min(BAR.into());
        let line = format!("  {what:26}{:>12}{share:>5} %  {}", bytes(n), "#".repeat(bar as usize));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
    for (name, what) in MORE {
        let _ = writeln!(
            text,
            "  {what:26}{}",
            format!("{:>12}", bytes(record.total(name))).trim_end()
        );
    }
    text.push('\n');
    for (name, what) in NUMBERS {
        let _ = writeln!(text, "  {what:26}{:>12}", grouped(record.total(name)));
    }
    classes(record, all, &mut text);
    if !record.threads.is_empty() {
        text.push_str("\n    thread      cached    room for       refills       flushes\n");
        for thread in record.threads.iter().take(THREADS) {
            let _ = writeln!(
                text,
                "{:>10}{:>12}{:>12}{:>14}{:>14}",
                thread.thread,
                bytes(thread.cached),
                bytes(thread.room),
                grouped(thread.refills),
                grouped(thread.flushes)
            );
        }
    }
    if record.total("missed") > 0 {
        text.push_str("\nNot complete: parts of the heap were locked all the time.\n");
    }
    text
}

fn classes(record: &Record, all: bool, text: &mut String) {
    let mut classes: Vec<&Class> = record.classes.iter().collect();
    if classes.is_empty() {
        return;
    }
    let shown = if all { classes.len() } else { CLASSES };
    classes.sort_by_key(|class| (std::cmp::Reverse(class.in_spans), class.size));
    if all {
        classes.sort_by_key(|class| class.size);
    }
    text.push_str(
        "\n      size      in use     objects      cached    free in spans    spans  used     refills     \
         flushes   waits\n",
    );
    for class in classes.iter().take(shown) {
        let used = u128::from(class.live()) * 100 / u128::from(class.in_spans.max(1));
        let _ = writeln!(
            text,
            "{:>10}{:>12}{:>12}{:>12}{:>17}{:>9}{used:>5}%{:>12}{:>12}{:>8}",
            grouped(class.size),
            bytes(class.live()),
            grouped(class.live_objects),
            bytes(class.cached()),
            bytes(class.free()),
            grouped(class.spans),
            grouped(class.refills),
            grouped(class.flushes),
            grouped(class.waits())
        );
    }
    if let Some(more) = classes.len().checked_sub(shown).filter(|&more| more > 0) {
        let _ = writeln!(text, "  and {more} with less; --all shows them");
    }
}

/// Two moments, and what is different.
pub fn compare(before: &Record, after: &Record, all: bool) -> String {
    let mut text = format!("before: {}\nafter:  {}\n\n", before.title(), after.title());
    let head = |text: &mut String, what: &str| {
        let _ = writeln!(text, "  {what:26}{:>14}{:>14}{:>16}", "before", "after", "difference");
    };
    let line = |text: &mut String, name: &str, what: &str, write: fn(u64) -> String| {
        let (a, b) = (before.total(name), after.total(name));
        let line =
            format!("  {what:26}{:>14}{:>14}{:>16}", write(a), write(b), difference(a, b, write));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    head(&mut text, "bytes");
    for (name, what) in PARTS.iter().chain(&MORE) {
        line(&mut text, name, what, bytes);
    }
    text.push('\n');
    head(&mut text, "numbers");
    for (name, what) in NUMBERS {
        line(&mut text, name, what, grouped);
    }
    compare_classes(before, after, all, &mut text);
    text
}

fn compare_classes(before: &Record, after: &Record, all: bool, text: &mut String) {
    let mut sizes: Vec<u64> =
        before.classes.iter().chain(&after.classes).map(|class| class.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut rows: Vec<(Class, Class)> =
        sizes.into_iter().map(|size| (before.class(size), after.class(size))).collect();
    if !all {
        rows.retain(|(a, b)| (a.live(), a.in_spans) != (b.live(), b.in_spans));
        rows.sort_by_key(|(a, b)| {
            std::cmp::Reverse(a.live().abs_diff(b.live()).max(a.in_spans.abs_diff(b.in_spans)))
        });
    }
    if rows.is_empty() {
        text.push_str("\n  No class holds more or less than before.\n");
        return;
    }
    let shown = if all { rows.len() } else { CLASSES };
    let _ = writeln!(
        text,
        "\n{:>10}{:>14}{:>14}{:>16}{:>14}{:>16}{:>14}",
        "size", "in use before", "after", "difference", "objects", "in spans", "refills"
    );
    for (a, b) in rows.iter().take(shown) {
        let line = format!(
            "{:>10}{:>14}{:>14}{:>16}{:>14}{:>16}{:>14}",
            grouped(a.size),
            bytes(a.live()),
            bytes(b.live()),
            difference(a.live(), b.live(), bytes),
            difference(a.live_objects, b.live_objects, grouped),
            difference(a.in_spans, b.in_spans, bytes),
            difference(a.refills, b.refills, grouped)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if let Some(more) = rows.len().checked_sub(shown).filter(|&more| more > 0) {
        let _ = writeln!(text, "  and {more} with less difference; --all shows them");
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    #[test]
    fn a_moment_is_shown_with_its_largest_class_first() {
        let text = show(&sample(10), false);
        let of = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
        assert!(of("\n     1,024") < of("\n        64"), "{text}");
        assert!(text.contains("in use") && text.contains("10.6 KiB"), "{text}");
        let all = show(&sample(10), true);
        assert!(all.find("\n        64").unwrap() < all.find("\n     1,024").unwrap(), "{all}");
    }

    #[test]
    fn what_is_different_is_said_with_its_sign() {
        let text = compare(&sample(10), &sample(12), false);
        assert!(text.contains("+2.12 KiB") && text.contains("+4\n"), "{text}");
        let text = compare(&sample(12), &sample(10), false);
        assert!(text.contains("-2.12 KiB"), "{text}");
        let text = compare(&sample(12), &sample(12), false);
        assert!(text.contains("No class"), "{text}");
    }
}
