//! The statistics of one moment, as the library writes them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, reason};

/// The version of the format: it grows when a member changes its meaning.
const VERSION: u64 = 1;
/// What every object says it is.
const SCHEMA: &str = "tiermalloc-stats";
/// How an object begins when the library writes it.
const BEGINNING: &str = "{\"schema\":\"tiermalloc-stats\"";

/// One object of a file. What later versions add is passed over; what is missing is 0.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Record {
    schema: String,
    version: u64,
    /// The program's name.
    pub program: String,
    /// The process's number.
    pub process: u64,
    /// Milliseconds since the process's first allocation.
    pub uptime_ms: u64,
    /// The pool that served.
    pub pool: String,
    /// Why it was written.
    pub reason: String,
    /// The sums, by name.
    pub totals: BTreeMap<String, u64>,
    /// The classes that were used.
    pub classes: Vec<Class>,
    /// The threads with the largest caches.
    pub threads: Vec<Thread>,
}

/// A size class.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Class {
    /// Bytes of an object.
    pub size: u64,
    /// Objects in the program's hands.
    pub live_objects: u64,
    thread_objects: u64,
    parked_objects: u64,
    transfer_objects: u64,
    quarantine_objects: u64,
    /// Spans.
    pub spans: u64,
    /// Bytes of these spans.
    pub in_spans: u64,
    /// Chains of objects to threads, and from them.
    pub refills: u64,
    /// Chains of objects from threads.
    pub flushes: u64,
    transfer_lock_waits: u64,
    span_lock_waits: u64,
}

impl Class {
    /// Bytes in the program's hands.
    pub fn live(&self) -> u64 {
        self.live_objects.saturating_mul(self.size)
    }

    /// Bytes that are free and in no span.
    pub fn cached(&self) -> u64 {
        let objects = [self.thread_objects, self.parked_objects, self.transfer_objects];
        let objects = objects.iter().fold(self.quarantine_objects, |a, b| a.saturating_add(*b));
        objects.saturating_mul(self.size)
    }

    /// Bytes that are free in spans, tails included.
    pub fn free(&self) -> u64 {
        self.in_spans.saturating_sub(self.live().saturating_add(self.cached()))
    }

    /// Waits for the locks of the class.
    pub fn waits(&self) -> u64 {
        self.transfer_lock_waits.saturating_add(self.span_lock_waits)
    }
}

/// A thread's cache.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// The kernel's number of the thread.
    pub thread: u64,
    /// Bytes in its cache.
    pub cached: u64,
    /// Bytes that there is room for.
    pub room: u64,
    /// Refills of it.
    pub refills: u64,
    /// Flushes from it.
    pub flushes: u64,
}

impl Record {
    /// A sum, by name.
    pub fn total(&self, name: &str) -> u64 {
        self.totals.get(name).copied().unwrap_or(0)
    }

    /// The class of a size, empty if it was not used.
    pub fn class(&self, size: u64) -> Class {
        let found = self.classes.iter().find(|class| class.size == size);
        found.cloned().unwrap_or(Class { size, ..Class::default() })
    }

    /// Which program this is, and when.
    pub fn title(&self) -> String {
        let (seconds, tenths) = (self.uptime_ms / 1000, self.uptime_ms / 100 % 10);
        let when = match self.reason.as_str() {
            "exit" => ", at its end",
            "signal" => ", at a signal",
            "interval" => ", every so often",
            _ => "",
        };
        format!(
            "{}, process {}, after {seconds}.{tenths} s, pool {}{when}",
            printable(&self.program),
            self.process,
            printable(&self.pool)
        )
    }
}

/// Nothing that a terminal would obey, and a drawing could not hold.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// All statistics of a file, at least one. What a program was about to write when it was looked at may be cut
/// off at the end; what else it has written to its standard error is passed over.
pub fn read(file: &Path) -> Result<Vec<Record>, Failure> {
    let name = file.display();
    let fail = |message: String| Failure { status: 1, message: format!("{name}: {message}") };
    let mut bytes = Vec::new();
    let got = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    got.map_err(|error| fail(reason(&error)))?;
    records(&String::from_utf8_lossy(&bytes)).map_err(fail)
}

fn records(text: &str) -> Result<Vec<Record>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut records = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let Some(object) = object(line) else { continue };
        match parse(object) {
            Ok(record) => records.push(record),
            Err(_) if n > 0 && n + 1 == lines.len() && !text.ends_with('\n') => {}
            Err(error) => return Err(format!("line {}: {error}", n + 1)),
        }
    }
    if records.is_empty() {
        return Err("no statistics in it that were written with stats_format=json".to_owned());
    }
    Ok(records)
}

/// What may be statistics in a line: all of it, or what follows when the program had not ended its own line.
fn object(line: &str) -> Option<&str> {
    let line = line.trim();
    let all = (line.starts_with('{') && line.contains(SCHEMA)).then_some(0);
    line.find(BEGINNING).or(all).map(|at| &line[at..])
}

fn parse(line: &str) -> Result<Record, String> {
    let hint = "not what tiermalloc writes with stats_format=json";
    let record: Record = serde_json::from_str(line).map_err(|error| format!("{hint} ({error})"))?;
    if record.schema != SCHEMA || record.totals.is_empty() {
        return Err(hint.to_owned());
    }
    if record.version != VERSION {
        let version = record.version;
        return Err(format!(
            "written in version {version} of the format; this program reads {VERSION}"
        ));
    }
    Ok(record)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record with two classes; `n` scales all of it.
    pub fn sample(n: u64) -> Record {
        let line = format!(
            r#"{{"schema":"tiermalloc-stats","version":1,"later":[1],"program":"x","process":7,"uptime_ms":12345,
            "pool":"tiered","reason":"exit","totals":{{"live":{},"live_objects":{},"mapped":{},"committed":{}}},
            "classes":[{{"size":64,"live_objects":{n},"thread_objects":2,"spans":1,"in_spans":8192,"refills":{n}}},
            {{"size":1024,"live_objects":{},"transfer_objects":8,"spans":{n},"in_spans":{}}}],
            "threads":[{{"thread":7,"cached":128,"room":4096,"refills":3,"flushes":0}}]}}"#,
            1088 * n,
            2 * n,
            n << 20,
            n << 19,
            4 * n,
            8192 * n
        );
        parse(&line.replace('\n', " ")).unwrap()
    }

    #[test]
    fn what_is_free_is_what_is_left() {
        let class = sample(3).class(1024);
        assert_eq!((class.live(), class.cached(), class.free()), (12288, 8192, 24576 - 20480));
        assert_eq!(sample(3).class(48).in_spans, 0);
        assert_eq!(sample(3).title(), "x, process 7, after 12.3 s, pool tiered, at its end");
    }

    #[test]
    fn other_json_is_refused() {
        let empty = r#"{"schema":"tiermalloc-stats","version":1}"#;
        for line in ["{}", "[]", "1", r#"{"schema":"x"}"#, "tiermalloc: the heap of x", empty] {
            assert!(parse(line).is_err(), "{line}");
        }
        let later = r#"{"schema":"tiermalloc-stats","version":2,"totals":{"live":1}}"#;
        assert!(parse(later).unwrap_err().contains("version 2"));
    }

    #[test]
    fn what_a_program_says_beside_them_is_passed_over() {
        let ours = r#"{"schema":"tiermalloc-stats","version":1,"totals":{"live":1}}"#;
        let text = format!("listening\n\nworking... {ours}\n{ours}\nbye\n{}", &ours[..40]);
        assert_eq!(records(&text).unwrap().len(), 2);
        assert_eq!(records(&format!("{ours}\n{{\"level\":\"info\"}}\n")).unwrap().len(), 1);
        assert_eq!(records(&ours.replace(':', " : ")).unwrap().len(), 1);
        assert!(records("listening\n").is_err());
    }

    #[test]
    fn a_title_holds_nothing_that_a_terminal_would_obey() {
        let record = Record { program: "a\u{1b}[31m\n".to_owned(), ..Record::default() };
        assert!(record.title().starts_with("a?[31m?, process"), "{}", record.title());
    }
}
