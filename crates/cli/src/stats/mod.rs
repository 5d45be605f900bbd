//! `tiermalloc stats`: what a program has written with `stats_format=json`, for people.

mod chart;
mod record;
mod table;
mod units;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::Failure;
use crate::output;
use record::Record;

/// What `tiermalloc stats` takes.
#[derive(Args, Debug)]
pub struct StatsOptions {
    /// Compare the first statistics in a file with the last ones of the same process
    #[arg(long)]
    pub compare: bool,

    /// All size classes, not only the largest
    #[arg(long)]
    pub all: bool,

    /// Draw bytes per tier and per size class
    #[arg(long, value_name = "OUT")]
    pub svg: Option<PathBuf>,

    /// Statistics as JSON, one object a line, of which the last is shown; `-` is
    /// standard input. Two files are compared, more are shown one after the other
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    #[arg(verbatim_doc_comment)]
    pub files: Vec<PathBuf>,
}

/// Shows or compares, and draws.
pub fn run(options: &StatsOptions) -> Result<(), Failure> {
    let mut records = Vec::new();
    for file in &options.files {
        records.push(record::read(file)?);
    }
    let last = |records: &[Record]| records.last().cloned();
    let mut text = String::new();
    if let [one, two] = &records[..] {
        text = show(options, last(one), last(two))?;
    } else {
        if records.len() > 1 && options.svg.is_some() {
            let message = "--svg draws the statistics of one file, or compares two".to_owned();
            return Err(Failure { status: 2, message });
        }
        for one in &records {
            let before = if options.compare { first_of_last(one) } else { None };
            text += if text.is_empty() { "" } else { "\n\n" };
            text += &show(options, before, last(one))?;
        }
    }
    output::print(&text)
}

/// One moment in words, and drawn if that is asked for; compared where there is one before.
fn show(
    options: &StatsOptions,
    before: Option<Record>,
    after: Option<Record>,
) -> Result<String, Failure> {
    // A file without any is refused when it is read.
    let Some(after) = after else { return Ok(String::new()) };
    if let Some(file) = &options.svg {
        draw(file, before.as_ref(), &after)?;
    }
    Ok(match &before {
        Some(before) => table::compare(before, &after, options.all),
        None => table::show(&after, options.all),
    })
}

/// The first statistics of the process that has written the last ones: several may have written.
fn first_of_last(records: &[Record]) -> Option<Record> {
    let last = records.last()?;
    let is_same =
        |record: &&Record| (record.process, &record.program) == (last.process, &last.program);
    records.iter().find(is_same).cloned()
}

fn draw(file: &Path, before: Option<&Record>, after: &Record) -> Result<(), Failure> {
    let fail = |what: String| Failure { status: 1, message: format!("{}: {what}", file.display()) };
    let svg = chart::svg(before, after).map_err(|error| fail(error.to_string()))?;
    std::fs::write(file, svg).map_err(|error| fail(crate::failure::reason(&error)))
}
