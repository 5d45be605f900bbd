//! `tiermalloc config --list`: the table of all that can be set, from the one that the parser has.

use std::fmt::Write;

use tiermalloc::Config;
use tiermalloc::config::{KEYS, Key, Kind, Text, Value};

use super::quoted;

/// Columns that the text is wrapped to.
const WIDTH: usize = 79;
/// All addresses that there are.
const ALL: usize = isize::MAX as usize;

/// A row of the table.
struct Row {
    key: &'static str,
    kind: &'static str,
    unit: &'static str,
    default: String,
    range: String,
    meaning: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    KEYS.iter().map(|key| Row {
        key: key.name,
        kind: kind(key),
        unit: unit(key),
        default: key.shown(&Config::new()).bare().to_string(),
        range: range(key),
        meaning: key.meaning,
    })
}

fn kind(key: &Key) -> &'static str {
    match key.kind {
        Kind::Choice(_) => "word",
        Kind::Flags(_) => "words",
        Kind::Switch => "switch",
        Kind::Bytes { .. } => "size",
        Kind::Duration { .. } => "time",
        _ => "text",
    }
}

fn unit(key: &Key) -> &'static str {
    match key.kind {
        Kind::Bytes { .. } => "B, KiB, MiB, GiB, TiB",
        Kind::Duration { .. } => "ms, s, min, h",
        _ => "",
    }
}

fn range(key: &Key) -> String {
    let none = |none: bool| if none { "none, or " } else { "" };
    let show = |value: Value| key.show(value).bare();
    match key.kind {
        Kind::Choice(words) => words.join(", "),
        Kind::Flags(words) => format!("off, or of {}, joined by +", words.join(", ")),
        Kind::Switch => "true, false".to_owned(),
        // A bound beyond all addresses is none.
        Kind::Bytes { least: 0, most, none: true, .. } if most >= ALL => "none, or any".to_owned(),
        Kind::Bytes { least, most, none: may, .. } if most >= ALL => {
            format!("{}{} and more", none(may), show(Value::Bytes(least)))
        }
        Kind::Bytes { least, most, none: may, automatic } => {
            let word = if automatic { "automatic, or " } else { none(may) };
            format!("{word}{} to {}", show(Value::Bytes(least)), show(Value::Bytes(most)))
        }
        Kind::Duration { least, most, none: may } => {
            let [least, most] = [least, most].map(|time| show(Value::Duration(time)));
            format!("{}{least} to {most}", none(may))
        }
        _ => format!("up to {} bytes", Text::MOST),
    }
}

// Writing to a String cannot fail; the results of `write!` say nothing.

pub fn text() -> String {
    let mut text = String::new();
    for row in rows() {
        let unit = if row.unit.is_empty() { String::new() } else { format!(" in {}", row.unit) };
        let default = if row.default.is_empty() { "empty" } else { &row.default };
        let _ = writeln!(text, "{}", row.key);
        wrap(&mut text, &format!("{}{unit}, default {default}", row.kind));
        wrap(&mut text, &row.range);
        wrap(&mut text, row.meaning);
    }
    text
}

/// Appends a paragraph, indented.
fn wrap(text: &mut String, body: &str) {
    let mut column = WIDTH;
    for word in body.split(' ') {
        if column + 1 + word.len() > WIDTH {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str("   ");
            column = 3;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.len();
    }
    text.push('\n');
}

pub fn markdown() -> String {
    let mut text = String::from(
        "| key | type | unit | default | range | meaning |\n|---|---|---|---|---|---|\n",
    );
    for Row { key, kind, unit, default, range, meaning } in rows() {
        let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{key}` | {kind} | {unit} | {default} | {range} | {meaning} |");
    }
    text
}

pub fn json() -> String {
    let mut text = String::from("{\n  \"keys\": [");
    for (i, row) in rows().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let cell = |text: &str| quoted(text);
        let _ = write!(
            text,
            "{comma}\n    {{\"key\": {}, \"type\": {}, \"unit\": {}, \"default\": {}, \"range\": {}, \"meaning\": {}}}",
            cell(row.key),
            cell(row.kind),
            cell(row.unit),
            cell(&row.default),
            cell(&row.range),
            cell(row.meaning)
        );
    }
    text.push_str("\n  ]\n}\n");
    text
}
