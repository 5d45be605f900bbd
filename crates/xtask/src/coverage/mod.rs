//! `cargo xtask coverage`: which lines of each tier its own tests reach.
//!
//! A tier is measured by the tests of its own crate and by nothing else: a line that only the facade
//! reaches counts as not covered below. What no test reaches is explained in `docs/coverage.md`, line by
//! line, and this command keeps that page true: a line that is neither covered nor explained is an
//! error, and so is an explanation of a line that is covered or gone.
//!
//! | module | what it is |
//! |---|---|
//! | [`measure`] | building with counters, running, asking LLVM for the counts |
//! | [`holes`] | the stretches of lines that were not reached, and what to call them |
//! | [`explained`] | the entries of `docs/coverage.md`, held against the holes |

mod explained;
mod holes;
mod measure;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::shell::Result;
use crate::table::Table;
use explained::{Kind, Page};
use holes::{Hole, Source};
use measure::Tools;

/// The least part of a tier's lines that its own tests reach, in percent.
const BAR: f64 = 95.0;

#[derive(clap::Args)]
pub struct Args {
    /// Only these tiers (directory names below `crates/`)
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// List every line that is not covered, the explained ones too
    #[arg(long)]
    missing: bool,
    /// Write annotated sources to this directory, a folder for each tier
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
}

/// What is measured: a crate, and the ways in which its tests are run. The counts of all runs are added
/// up.
struct Tier {
    name: &'static str,
    runs: &'static [Run],
}

/// A run of a crate's tests: with these features, and the allocator configured like this.
#[derive(Clone, Copy)]
struct Run {
    features: &'static str,
    conf: &'static str,
}

const fn features(features: &'static str) -> Run {
    Run { features, conf: "" }
}

const fn conf(conf: &'static str) -> Run {
    Run { features: "", conf }
}

const PLAIN: Run = features("");

const TIERS: &[Tier] = &[
    Tier { name: "sync", runs: &[PLAIN, features("parking_lot")] },
    Tier { name: "size-class", runs: &[PLAIN] },
    Tier { name: "page-map", runs: &[PLAIN, features("alloc")] },
    Tier { name: "object-pool", runs: &[PLAIN, features("memmap2,parking_lot")] },
    Tier { name: "page-heap", runs: &[PLAIN, features("memmap2")] },
    Tier { name: "central-cache", runs: &[PLAIN] },
    Tier { name: "thread-cache", runs: &[PLAIN] },
    Tier {
        name: "tiermalloc",
        runs: &[
            PLAIN,
            features("dynamic-tls"),
            conf("pool=central"),
            conf("pool=hardened"),
            conf("pool=guarded"),
            conf("pool=system"),
        ],
    },
    // Its tests drive C and C++ programs; what is measured is the library under them.
    Tier { name: "preload", runs: &[PLAIN, conf("pool=central"), conf("pool=hardened")] },
];

/// A tier's figures.
struct Figures {
    lines: usize,
    covered: usize,
    explained: usize,
    open: usize,
}

impl Figures {
    fn percent(&self) -> f64 {
        if self.lines == 0 { 100.0 } else { 100.0 * self.covered as f64 / self.lines as f64 }
    }
}

pub fn run(args: &Args) -> Result {
    let known: Vec<&str> = TIERS.iter().map(|tier| tier.name).collect();
    if let Some(unknown) = args.crates.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("{unknown} is not among the tiers: {}", known.join(", ")));
    }
    let chosen =
        |tier: &&Tier| args.crates.is_empty() || args.crates.iter().any(|name| name == tier.name);
    let tools = Tools::find()?;
    let page = Page::read()?;
    page.only_about(&known)?;

    let mut table = Table::new(["tier", "lines", "covered", "percent", "explained", "open"]);
    let mut complaints = Vec::new();
    for tier in TIERS.iter().filter(chosen) {
        println!("\n=== {}", tier.name);
        let report = measure::tier(&tools, tier.name, tier.runs)?;
        if let Some(dir) = &args.html {
            report.write_html(&tools, &dir.join(tier.name))?;
        }
        let figures = judge(tier.name, &report.sources()?, &page, args.missing, &mut complaints);
        let percent = figures.percent();
        if percent < BAR {
            complaints.push(format!("{}: {percent:.2} % of its lines, {BAR} % wanted", tier.name));
        }
        table.row([
            tier.name.to_owned(),
            figures.lines.to_string(),
            figures.covered.to_string(),
            format!("{percent:.2}"),
            figures.explained.to_string(),
            figures.open.to_string(),
        ]);
    }

    println!();
    table.print();
    println!("each tier by its own tests; {BAR} percent wanted, and every other line explained");
    if complaints.is_empty() {
        return Ok(());
    }
    println!();
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    Err(format!("{} of these; docs/coverage.md says how to write an entry", complaints.len()))
}

/// Holds the holes of one tier against the page.
fn judge(
    tier: &str,
    sources: &[Source],
    page: &Page,
    list: bool,
    complaints: &mut Vec<String>,
) -> Figures {
    let mut figures = Figures { lines: 0, covered: 0, explained: 0, open: 0 };
    // The functions for which each entry was needed.
    let mut used = vec![BTreeSet::new(); page.entries.len()];
    for source in sources {
        let compiled = |function: &str| {
            page.find_compiled(&source.path, function).filter(|_| source.is_compiled(function))
        };
        for (_, function, count) in source.lines() {
            if let Some(entry) = compiled(function) {
                used[entry].insert(function.to_owned());
                continue;
            }
            figures.lines += 1;
            figures.covered += (count > 0) as usize;
        }
        for hole in source.holes() {
            if compiled(&hole.function).is_some() {
                continue;
            }
            let Some(entry) = page.find(&hole) else {
                figures.open += hole.lines;
                complaints.push(shown(&hole, "neither covered nor explained"));
                continue;
            };
            figures.explained += hole.lines;
            if list {
                println!("{}", shown(&hole, &page.entries[entry].reason));
            }
            used[entry].insert(hole.function);
        }
    }
    for (entry, used) in page.entries.iter().zip(&used) {
        let is_ours = entry.crate_name() == Some(tier);
        if is_ours && used.len() < entry.functions() && !entry.may_be_covered(sources) {
            let what = match entry.kind {
                Kind::CompileTime => "is run by tests, is no const fn, or is gone",
                Kind::Hole { .. } => "is covered, is longer or shorter, or is gone",
            };
            complaints.push(format!("docs/coverage.md:{}: what this explains {what}", entry.line));
        }
    }
    figures
}

fn shown(hole: &Hole, why: &str) -> String {
    format!("{}:{}: {}: {why}", hole.file, hole.line, hole.name())
}
