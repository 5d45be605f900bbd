//! The statistics of one moment, as the library writes them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, reason};

/// One object of a file. What later versions add is passed over; what is missing is 0.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Record {
    schema: String,
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
            self.program, self.process, self.pool
        )
    }
}

/// All statistics of a file, at least one. What a program was about to write when it was looked at may be cut
/// off at the end.
pub fn read(file: &Path) -> Result<Vec<Record>, Failure> {
    let name = file.display();
    let fail = |message: String| Failure { status: 1, message: format!("{name}: {message}") };
    let mut text = String::new();
    let got = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    got.map_err(|error| fail(reason(&error)))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut records = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        match parse(line) {
            Ok(record) => records.push(record),
            Err(_) if n > 0 && n + 1 == lines.len() && !text.ends_with('\n') => {}
            Err(error) => return Err(fail(format!("line {}: {error}", n + 1))),
        }
    }
    if records.is_empty() {
        return Err(fail("no statistics in it".to_owned()));
    }
    Ok(records)
}

fn parse(line: &str) -> Result<Record, String> {
    let hint = "not what tiermalloc writes with stats_format=json";
    let record: Record = serde_json::from_str(line).map_err(|error| format!("{hint} ({error})"))?;
    if record.schema == "tiermalloc-stats" { Ok(record) } else { Err(hint.to_owned()) }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record with two classes; `n` scales all of it.
    pub fn sample(n: u64) -> Record {
        let line = format!(
            r#"{{"schema":"tiermalloc-stats","version":9,"later":[1],"program":"x","process":7,"uptime_ms":12345,
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
        for line in ["{}", "[]", "1", r#"{"schema":"x"}"#, "tiermalloc: the heap of x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
