//! The raw data: one JSON object a line, written as soon as it is known.
//!
//! The first line describes the series (machine, command line, allocators), every later one is a
//! single run, a single figure of memory, a single point of a curve, or the reason why something is
//! not there. Tables and plots are made of this file and of nothing else, so that an old series can
//! be drawn again (`--render`) and a broken-off one is not lost.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{Result, at};

/// What belongs together in one table.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Workloads in C and C++, the allocator preloaded
    Preload,
    /// Real programs, the allocator preloaded
    Real,
    /// Workloads in Rust, the allocator linked in
    Global,
    /// Memory that comes back, or does not
    Memory,
    /// Cost against live heap, threads, threads ever created, spans
    Scaling,
}

impl Section {
    /// The heading of its table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Preload => "C and C++ workloads, allocator preloaded",
            Self::Real => "Real programs, allocator preloaded",
            Self::Global => "Rust workloads, allocator linked in",
            Self::Memory => "Memory over time",
            Self::Scaling => "Scaling",
        }
    }

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preload => "preload",
            Self::Real => "real",
            Self::Global => "global",
            Self::Memory => "memory",
            Self::Scaling => "scaling",
        }
    }
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// What was measured, where and how.
    Series(Series),
    /// One run of one program on one allocator.
    Run(Run),
    /// A run that came to nothing, or an allocator that could not take part.
    Absent(Absent),
    /// A figure that is not a time.
    Figure(Figure),
    /// A point of a curve.
    Point(Point),
}

/// The head of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The day, in UTC.
    pub date: String,
    /// The command line, as a person would repeat it.
    pub command: String,
    /// What the figures are relative to, in the sections of preloaded allocators.
    pub reference: String,
    /// Share of the work that a workload does: 1 is its full size.
    pub scale: f64,
    /// Counted rounds.
    pub rounds: u32,
    /// Threads of the workloads that take as many as there are.
    pub threads: u32,
    /// Seed of the order of the runs.
    pub seed: u64,
    /// The machine, as pairs of a name and what it has.
    pub machine: Vec<(String, String)>,
    /// The allocators: name, version and origin.
    pub peers: Vec<PeerNote>,
    /// The rows, in the order of the tables.
    pub rows: Vec<RowNote>,
}

/// An allocator of the series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerNote {
    /// Where it takes part: its name may mean another build in another section.
    pub section: Section,
    /// Its name.
    pub name: String,
    /// Its version, and where it is from.
    pub version: String,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowNote {
    /// The table.
    pub section: Section,
    /// Its name.
    pub name: String,
    /// What it does, in a line.
    pub about: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The table.
    pub section: Section,
    /// The row.
    pub row: String,
    /// The allocator.
    pub peer: String,
    /// The round, from 1 on.
    pub round: u32,
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Seconds of processor time in the program.
    pub user_s: f64,
    /// Seconds of processor time in the kernel for the program.
    pub system_s: f64,
    /// Peak resident memory, KiB.
    pub peak_kib: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Times that the program was put aside although it could have gone on.
    pub preempted: u64,
}

/// Something that is not there, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    /// The table.
    pub section: Section,
    /// The row; empty if it is about all of them.
    pub row: String,
    /// The allocator; empty if it is about all of them.
    pub peer: String,
    /// Why, in a line.
    pub reason: String,
}

/// A figure that is not a time, of one of the experiments about memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The experiment.
    pub row: String,
    /// The allocator.
    pub peer: String,
    /// What is measured.
    pub name: String,
    /// How much of it.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// A point of a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The curve, such as `heap`.
    pub curve: String,
    /// The allocator.
    pub peer: String,
    /// Where on the axis below: bytes, threads, spans.
    pub x: f64,
    /// How much, in the unit of the curve.
    pub y: f64,
}

/// A file of raw data that is being written.
pub struct Recorder {
    file: File,
    lines: Vec<Line>,
}

impl Recorder {
    /// Begins a file, in place of what was there.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: File::create(path).map_err(at(path))?, lines: Vec::new() })
    }

    /// Writes a line, at once.
    pub fn write(&mut self, line: Line) -> Result {
        let mut text = serde_json::to_string(&line).map_err(|e| e.to_string())?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|e| format!("raw data: {e}"))?;
        self.lines.push(line);
        Ok(())
    }

    /// All that was written.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

/// Reads a file of raw data.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let file = File::open(path).map_err(at(path))?;
    let mut lines = Vec::new();
    for (number, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(at(path))?;
        let line = serde_json::from_str(&text)
            .map_err(|e| format!("{}, line {}: {e}", path.display(), number + 1))?;
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let path = std::env::temp_dir().join(format!("bench-record-{}", std::process::id()));
        let lines = [
            Line::Series(Series { rows: Vec::new(), rounds: 3, ..Series::default() }),
            Line::Run(Run {
                section: Section::Preload,
                row: "larson".into(),
                peer: "glibc".into(),
                round: 1,
                wall_s: 0.25,
                user_s: 0.2,
                system_s: 0.01,
                peak_kib: 2048,
                minor_faults: 10,
                preempted: 0,
            }),
            Line::Absent(Absent {
                section: Section::Real,
                row: "lua".into(),
                peer: String::new(),
                reason: "not installed: \"lua\"".into(),
            }),
        ];
        let mut recorder = Recorder::create(&path).unwrap();
        for line in &lines {
            recorder.write(line.clone()).unwrap();
        }
        assert_eq!(recorder.lines(), lines);
        assert_eq!(read(&path).unwrap(), lines);
        std::fs::write(&path, "{\"kind\":\"run\"}\n").unwrap();
        assert!(read(&path).unwrap_err().contains("line 1"));
        std::fs::remove_file(&path).unwrap();
    }
}
