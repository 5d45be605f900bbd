//! A series from first to last: who takes part, what is run, where the results go.

use std::path::{Path, PathBuf};

use crate::files::{Places, Result, create_dir};
use crate::launch::Launcher;
use crate::options::Options;
use crate::peers::{self, Peer};
use crate::record::{Absent, Line, PeerNote, Recorder, RowNote, Section, Series};
use crate::rows::{Table, global, programs, workloads};
use crate::{machine, measure, memory, report, scaling};

/// What takes part.
#[derive(Default)]
struct Cast {
    /// The tables of times.
    tables: Vec<Table>,
    /// The allocators that are preloaded, for the experiments that are not tables.
    preloaded: Vec<Peer>,
    /// What does not take part, and why.
    absent: Vec<Absent>,
}

/// Measures what the command line asks for.
pub fn run(places: &Places, options: &Options) -> Result {
    check_names(places, options)?;
    let (sections, effort) = (options.sections(), options.effort());
    let launcher = Launcher::build(places)?.configured(options.conf.as_deref());
    let cast = gather(places, options, &launcher, &sections)?;
    let out = out_dir(places, options)?;
    let mut recorder = Recorder::create(&out.join("runs.jsonl"))?;
    recorder.write(Line::Series(describe(options, &cast, &sections)))?;
    for absent in &cast.absent {
        recorder.write(Line::Absent(absent.clone()))?;
    }

    measure::run(places, &launcher, &cast.tables, effort, &mut recorder)?;
    let (peers, only) = (&cast.preloaded, &options.only);
    if sections.contains(&Section::Memory) {
        memory::run(places, &launcher, peers, only, options.length(), &mut recorder)?;
    }
    if sections.contains(&Section::Scaling) {
        let (quick, seed) = (options.quick, effort.seed);
        scaling::run(places, &launcher, peers, only, quick, seed, &mut recorder)?;
    }
    print!("{}", report::text(recorder.lines()));
    report::write_to(&out, recorder.lines())?;
    println!("\nraw data, tables and plots: {}", out.display());
    Ok(())
}

/// An error for a name that nothing has: a series without the allocator that was meant would be no
/// answer.
fn check_names(places: &Places, options: &Options) -> Result {
    let linked = global::names(places).unwrap_or_default();
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

/// Finds and builds everything that takes part.
fn gather(
    places: &Places,
    options: &Options,
    launcher: &Launcher,
    sections: &[Section],
) -> Result<Cast> {
    let mut cast = Cast::default();
    if sections.iter().any(|section| *section != Section::Global) {
        gather_preloaded(places, options, launcher, sections, &mut cast)?;
    }
    if sections.contains(&Section::Global) && places.benches().join("global").is_dir() {
        let built = global::build(places, &options.only, &options.peers)?;
        for (peer, reason) in &built.absent {
            cast.leave_out(Section::Global, "", peer, reason);
        }
        cast.tables.push(built.table);
    }
    cast.tables.retain(|table| !table.rows.is_empty());
    Ok(cast)
}

fn gather_preloaded(
    places: &Places,
    options: &Options,
    launcher: &Launcher,
    sections: &[Section],
    cast: &mut Cast,
) -> Result {
    let names = peers::names().into_iter().map(str::to_owned);
    let is_asked = |name: &String| {
        options.peers.is_empty() || options.peers.contains(name) || *name == options.reference
    };
    let wanted: Vec<String> = names.filter(is_asked).collect();
    let found = peers::find(places, launcher, &wanted, &options.brought)?;
    for (name, reason) in &found.absent {
        cast.leave_out(Section::Preload, "", name, reason);
    }
    if found.peers.iter().all(|peer| peer.name != options.reference) {
        return Err(format!("the reference, {}, cannot be measured", options.reference));
    }
    if sections.contains(&Section::Preload) {
        let rows = workloads::rows(places, &options.only, machine::processors())?;
        cast.tables.push(Table { section: Section::Preload, rows, peers: found.peers.clone() });
    }
    if sections.contains(&Section::Real) {
        let (rows, missing) = programs::rows(places, &options.only, &found.libc)?;
        for (row, reason) in &missing {
            cast.leave_out(Section::Real, row, "", reason);
        }
        cast.tables.push(Table { section: Section::Real, rows, peers: found.peers.clone() });
    }
    cast.preloaded = found.peers;
    Ok(())
}

impl Cast {
    /// Notes that something does not take part, and says so at once.
    fn leave_out(&mut self, section: Section, row: &str, peer: &str, reason: &str) {
        eprintln!("{}{row}{peer}: {reason}", if row.is_empty() { "" } else { "program " });
        self.absent.push(Absent {
            section,
            row: row.to_owned(),
            peer: peer.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

/// Where the results go.
fn out_dir(places: &Places, options: &Options) -> Result<PathBuf> {
    let out = match &options.out {
        Some(out) => out.clone(),
        None if options.is_whole() => places.root.join("docs/benchmarks"),
        None => places.scratch("last")?,
    };
    create_dir(&out)?;
    Ok(out)
}

/// The head of the raw data.
fn describe(options: &Options, cast: &Cast, sections: &[Section]) -> Series {
    let effort = options.effort();
    Series {
        date: machine::today(),
        command: command_line(std::env::args().skip(1)),
        reference: options.reference.clone(),
        scale: effort.scale,
        rounds: effort.rounds,
        threads: machine::processors(),
        seed: effort.seed,
        machine: machine::describe(),
        peers: peer_notes(cast, sections),
        rows: row_notes(cast, sections, &options.only),
    }
}

/// The allocators of every section that runs.
fn peer_notes(cast: &Cast, sections: &[Section]) -> Vec<PeerNote> {
    let of_tables = cast.tables.iter().map(|table| (table.section, table.peers.as_slice()));
    let others = [Section::Memory, Section::Scaling].into_iter();
    let others = others.filter(|section| sections.contains(section));
    let others = others.map(|section| (section, cast.preloaded.as_slice()));
    let notes = |(section, peers): (Section, &[Peer])| -> Vec<PeerNote> {
        let note =
            |peer: &Peer| PeerNote { section, name: peer.name.clone(), version: peer.note() };
        peers.iter().map(note).collect()
    };
    of_tables.chain(others).flat_map(notes).collect()
}

/// The rows of every section that runs.
fn row_notes(cast: &Cast, sections: &[Section], patterns: &[String]) -> Vec<RowNote> {
    let rows = cast.tables.iter().flat_map(|table| &table.rows);
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
fn command_line(args: impl Iterator<Item = String>) -> String {
    let file = |path: &str| {
        let name = Path::new(path).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let shown = args.map(|arg| match arg.split_once('=') {
        Some((name, path)) if path.contains('/') => format!("{name}={}", file(path)),
        None if arg.starts_with('/') => file(&arg),
        _ => arg,
    });
    ["cargo xtask bench".to_owned()].into_iter().chain(shown).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_command_is_shown_without_directories() {
        let args =
            ["--quick", "--peer", "before=/some/where/lib.so", "--out", "/tmp/x", "--scale=0.5"];
        assert_eq!(
            command_line(args.into_iter().map(str::to_owned)),
            "cargo xtask bench --quick --peer before=lib.so --out x --scale=0.5"
        );
    }

    #[test]
    fn names_that_nothing_has_are_refused() {
        let places = Places::find().unwrap();
        let check = |line: &str| check_names(&places, &Options::parse_from(line.split(' ')));
        assert_eq!(check("bench --peers glibc,tiermalloc --reference mimalloc3"), Ok(()));
        assert!(check("bench --peers glibc,nosuch").unwrap_err().contains("called nosuch"));
        assert!(check("bench --reference nosuch").is_err());
    }
}
