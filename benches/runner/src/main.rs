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
mod options;
mod order;
mod peers;
mod progress;
mod record;
mod report;
mod rows;
mod stats;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use files::{Places, Result};
use launch::Launcher;
use options::Options;
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
        peers::packages().into_iter().chain(rows::programs::packages()).for_each(|p| println!("{p}"));
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
        return Ok(());
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

fn measure(places: &Places, options: &Options) -> Result {
    let sections = options.sections();
    let effort = options.effort();
    let launcher = Launcher::build(places)?;
    let threads = machine::processors();
    let (mut tables, mut absent) = (Vec::new(), Vec::new());
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
        peers: tables.iter().flat_map(peer_notes).collect(),
        rows: tables.iter().flat_map(row_notes).collect(),
    }))?;
    for absent in absent {
        recorder.write(Line::Absent(absent))?;
    }
    measure::run(places, &launcher, &tables, effort, &mut recorder)?;
    print!("{}", report::text(recorder.lines()));
    println!("\nraw data, tables and plots: {}", out.display());
    Ok(())
}

fn peer_notes(table: &Table) -> impl Iterator<Item = PeerNote> {
    let section = table.section;
    table.peers.iter().map(move |peer| PeerNote {
        section,
        name: peer.name.clone(),
        version: peer.version.clone(),
    })
}

fn row_notes(table: &Table) -> impl Iterator<Item = RowNote> {
    let section = table.section;
    table.rows.iter().map(move |row| RowNote {
        section,
        name: row.name.clone(),
        about: row.about.clone(),
    })
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
