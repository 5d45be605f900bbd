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
//! | [`series`] | puts them together for what was asked, from first to last |
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
mod series;
mod stats;
mod summary;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use files::{Places, Result};
use options::Options;

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
    series::run(&places, options)
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
