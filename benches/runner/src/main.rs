//! `cargo xtask bench`: tiermalloc beside other allocators.
//!
//! A run is a child process; its wall time, processor time and peak resident memory are compared.
//! From the command line to the report:
//!
//! | module | what it does |
//! |---|---|
//! | [`options`] | reads the command line |
//! | [`peers`] | finds, builds and checks the allocators |
//! | [`rows`] | knows the workloads and programs, and how each is run |
//! | [`order`] | draws the order of the runs |
//! | [`launch`] | runs one program and reads what it took |
//! | [`measure`] | runs them all, round after round, with [`progress`] |
//! | [`memory`], [`scaling`] | experiments whose result is not a time, and curves |
//! | [`record`] | the raw data, a line a run |
//! | [`summary`], [`stats`] | medians, ratios, means |
//! | [`report`] | tables and plots |
//!
//! `cargo xtask bench` builds this package, tells it where the repository and its target directory
//! are, and starts it.

mod files;
mod launch;
mod machine;
mod measure;
mod memory;
mod options;
mod order;
mod peers;
mod progress;
mod record;
mod report;
mod rows;
mod scaling;
mod stats;
mod summary;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use files::{Places, Result};
use launch::Launcher;
use options::Options;
use peers::Peer;
use record::{Absent, Line, PeerNote, Recorder, RowNote, Section, Series};
use rows::Table;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result {
    let places = Places::find()?;
    if options.packages {
        peers::packages()
            .into_iter()
            .chain(rows::programs::packages())
            .for_each(|p| println!("{p}"));
        return Ok(());
    }
    if options.list {
        return list(&places);
    }
    if options.build_peers {
        return build_peers(&places, options);
    }
    if let Some(file) = &options.render {
        let lines = record::read(file)?;
        print!("{}", report::text(&lines));
        let beside = file.parent().unwrap_or(Path::new("")).to_owned();
        let out = options.out.clone().unwrap_or(beside);
        files::create_dir(&out)?;
        return report::write_to(&out, &lines);
    }
    measure(&places, options)
}

fn list(places: &Places) -> Result {
    let show = |title: &str, rows: &mut dyn Iterator<Item = (&str, &str)>| {
        println!("{title}");
        rows.for_each(|(name, about)| println!("  {name:<16} {about}"));
    };
    show("preload:", &mut rows::workloads::list());
    show("real:", &mut rows::programs::list());
    show("memory:", &mut memory::EXPERIMENTS.iter().map(|e| (e.name, e.about)));
    show("scaling:", &mut scaling::CURVES.iter().map(|c| (c.name, c.title)));
    println!("allocators to preload:\n  {}", peers::names().join(" "));
    if let Ok(names) = rows::global::names(places) {
        println!("allocators linked into Rust:\n  {}", names.join(" "));
    }
    Ok(())
}

fn build_peers(places: &Places, options: &Options) -> Result {
    for recipe in peers::build::RECIPES {
        if options.peers.is_empty() || options.peers.iter().any(|name| name == recipe.name) {
            peers::build::forget(places, recipe)?;
            match peers::build::library(places, recipe) {
                Ok((_, version)) => println!("{}: {version}", recipe.name),
                Err(reason) => println!("{}: {reason}", recipe.name),
            }
        }
    }
    Ok(())
}

/// An error for a name that nothing has: a series without the allocator that was meant would be no
/// answer.
fn check_names(places: &Places, options: &Options) -> Result {
    let linked = rows::global::names(places).unwrap_or_default();
    let mut known = peers::names();
    let others = linked.iter().chain(options.brought.iter().map(|(name, _)| name));
    for name in others {
        if !known.contains(&name.as_str()) {
            known.push(name);
        }
    }
    let asked = options.peers.iter().chain([&options.reference]);
    match asked.into_iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("no allocator is called {name}; known are {}", known.join(", "))),
        None => Ok(()),
    }
}

fn measure(places: &Places, options: &Options) -> Result {
    check_names(places, options)?;
    let sections = options.sections();
    let effort = options.effort();
    let launcher = Launcher::build(places)?;
    let threads = machine::processors();
    let (mut tables, mut absent) = (Vec::new(), Vec::new());
    let mut preloaded = Vec::new();
    let missing = |section: Section, row: &str, peer: &str, reason: &str| Absent {
        section,
        row: row.to_owned(),
        peer: peer.to_owned(),
        reason: reason.to_owned(),
    };

    if sections.iter().any(|section| *section != Section::Global) {
        let names = peers::names().into_iter().map(str::to_owned);
        let is_asked = |name: &String| {
            options.peers.is_empty() || options.peers.contains(name) || *name == options.reference
        };
        let wanted: Vec<String> = names.filter(is_asked).collect();
        let found = peers::find(places, &launcher, &wanted, &options.brought)?;
        for (name, reason) in &found.absent {
            eprintln!("{name}: {reason}");
            absent.push(missing(Section::Preload, "", name, reason));
        }
        if sections.contains(&Section::Preload) {
            let rows = rows::workloads::rows(places, &options.only, threads)?;
            tables.push(Table { section: Section::Preload, rows, peers: found.peers.clone() });
        }
        if sections.contains(&Section::Real) {
            let (rows, without) = rows::programs::rows(places, &options.only, &found.libc)?;
            let without = without.iter();
            absent.extend(without.map(|(row, reason)| missing(Section::Real, row, "", reason)));
            tables.push(Table { section: Section::Real, rows, peers: found.peers.clone() });
        }
        if found.peers.iter().all(|peer| peer.name != options.reference) {
            return Err(format!("the reference, {}, cannot be measured", options.reference));
        }
        preloaded = found.peers;
    }
    if sections.contains(&Section::Global) && places.benches().join("global").is_dir() {
        let built = rows::global::build(places, &options.only, &options.peers)?;
        let without = built.absent.iter();
        absent.extend(without.map(|(peer, reason)| missing(Section::Global, "", peer, reason)));
        tables.push(built.table);
    }
    tables.retain(|table| !table.rows.is_empty());

    let out = match &options.out {
        Some(out) => out.clone(),
        None if options.is_whole() => places.root.join("docs/benchmarks"),
        None => places.scratch("last")?,
    };
    files::create_dir(&out)?;
    let mut recorder = Recorder::create(&out.join("runs.jsonl"))?;
    recorder.write(Line::Series(Series {
        date: machine::today(),
        command: command_line(),
        reference: options.reference.clone(),
        scale: effort.scale,
        rounds: effort.rounds,
        threads,
        seed: effort.seed,
        machine: machine::describe(),
        peers: peer_notes(&tables, &preloaded, &sections),
        rows: row_notes(&tables, &sections, &options.only),
    }))?;
    for absent in absent {
        recorder.write(Line::Absent(absent))?;
    }
    measure::run(places, &launcher, &tables, effort, &mut recorder)?;
    if sections.contains(&Section::Memory) {
        let length = options.length();
        memory::run(places, &launcher, &preloaded, &options.only, length, &mut recorder)?;
    }
    if sections.contains(&Section::Scaling) {
        let (quick, seed) = (options.quick, effort.seed);
        scaling::run(places, &launcher, &preloaded, &options.only, quick, seed, &mut recorder)?;
    }
    print!("{}", report::text(recorder.lines()));
    report::write_to(&out, recorder.lines())?;
    println!("\nraw data, tables and plots: {}", out.display());
    Ok(())
}

/// The allocators of every section that runs.
fn peer_notes(tables: &[Table], preloaded: &[Peer], sections: &[Section]) -> Vec<PeerNote> {
    let of_tables = tables.iter().map(|table| (table.section, table.peers.as_slice()));
    let others = [Section::Memory, Section::Scaling].into_iter();
    let others = others.filter(|section| sections.contains(section)).map(|s| (s, preloaded));
    let note = |(section, peers): (Section, &[Peer])| -> Vec<PeerNote> {
        let one = |peer: &Peer| PeerNote {
            section,
            name: peer.name.clone(),
            version: peer.version.clone(),
        };
        peers.iter().map(one).collect()
    };
    of_tables.chain(others).flat_map(note).collect()
}

/// The rows of every section that runs.
fn row_notes(tables: &[Table], sections: &[Section], patterns: &[String]) -> Vec<RowNote> {
    let rows = tables.iter().flat_map(|table| &table.rows);
    let mut notes: Vec<RowNote> = rows
        .map(|row| RowNote {
            section: row.section,
            name: row.name.clone(),
            about: row.about.clone(),
        })
        .collect();
    if sections.contains(&Section::Memory) {
        notes.extend(memory::notes(patterns));
    }
    if sections.contains(&Section::Scaling) {
        notes.extend(scaling::notes(patterns));
    }
    notes
}

/// The command as a person would repeat it, without the directories of this machine.
fn command_line() -> String {
    let args = std::env::args().skip(1).map(|arg| match arg.rsplit_once('/') {
        Some((_, file)) if arg.contains('=') => {
            format!("{}={file}", arg.split('=').next().unwrap_or_default())
        }
        _ => arg,
    });
    ["cargo xtask bench".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}
