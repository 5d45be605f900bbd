//! `cargo xtask instructions`: what one call costs, in instructions.
//!
//! Two programs, one in C (`benches/instructions/pairs.c`, run with a library preloaded) and one in
//! Rust (`benches/global/pairs`, an allocator linked in, with LTO). Each runs a loop an entry point;
//! the loop itself is part of the count. `--peers` counts every other allocator too and marks the
//! cheapest of them in each row. `--check`, which CI runs, counts ours alone and fails when a count is
//! above its bar.

mod code;
mod entries;
mod peers;

use std::path::{Path, PathBuf};

use crate::callgrind;
use crate::shell::{Result, cmd};
use crate::table::Table;
use crate::workspace;
use entries::Entry;
use peers::Allocator;

#[derive(clap::Args)]
pub struct Args {
    /// Fail when a count is above its bar; ours alone is counted unless others are asked for
    #[arg(long)]
    check: bool,
    /// Count the other allocators too: packages that are installed, libraries that `cargo xtask bench`
    /// has built, crates
    #[arg(long = "peers")]
    all: bool,
    /// Count another allocator too, as a preloaded library (may be given again)
    #[arg(long = "peer", value_name = "NAME=PATH.so", value_parser = workspace::parse_peer)]
    named: Vec<(String, PathBuf)>,
    /// Install the packages that bring peers, or that building them takes
    #[arg(long)]
    install: bool,
    /// Count only entries whose name contains this
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result {
    let above = count(args)?;
    if args.check && !above.is_empty() {
        return Err(format!("above the bar: {}", above.join("; ")));
    }
    Ok(())
}

/// The step of `ci`.
pub fn check() -> Result {
    run(&Args { check: true, all: false, named: Vec::new(), install: false, filter: None })
}

/// Counts, prints the tables, and returns what is above its bar.
fn count(args: &Args) -> Result<Vec<String>> {
    callgrind::available()?;
    if args.install {
        peers::install()?;
    }
    let filter = args.filter.as_deref().unwrap_or("");
    let preloaded = preloaded(args)?;
    let mut above = table("C, preloaded", entries::C, &preloaded, filter)?;
    if let (true, Some(library)) = (filter.is_empty(), &preloaded[0].preload) {
        above.extend(code::check(&preloaded[0].program, library)?);
    }
    above.extend(table("Rust, GlobalAlloc, LTO", entries::RUST, &linked(args)?, filter)?);
    Ok(above)
}

/// The columns of the table in C, ours first.
fn preloaded(args: &Args) -> Result<Vec<Allocator>> {
    let program = compile_c(&workspace::scratch("instructions")?)?;
    let column = |name: &str, preload, version: &str| Allocator {
        name: name.to_owned(),
        program: program.clone(),
        preload,
        version: version.to_owned(),
    };
    let mut columns = vec![column("tiermalloc", Some(workspace::release_library()?), "")];
    if !args.check || args.all {
        let glibc = cmd("getconf").quiet().arg("GNU_LIBC_VERSION").read().unwrap_or_default();
        columns.push(column("system", cxx_runtime(), glibc.trim()));
    }
    if args.all {
        for library in peers::libraries()? {
            columns.push(column(&library.name, Some(library.path), &library.version));
        }
    }
    for (name, path) in &args.named {
        columns.push(column(name, Some(path.clone()), "as named on the command line"));
    }
    Ok(columns)
}

/// The columns of the table in Rust, ours first.
fn linked(args: &Args) -> Result<Vec<Allocator>> {
    let mut allocators = vec![peers::linked("tiermalloc")?];
    if args.all {
        for name in peers::linked_names()? {
            match peers::linked(&name) {
                Ok(allocator) => allocators.push(allocator),
                Err(reason) => println!("{name} is left out: {reason}"),
            }
        }
    } else if !args.check {
        allocators.push(peers::linked("system")?);
    }
    Ok(allocators)
}

/// One table: a row an entry, a column an allocator, the first being ours.
fn table(
    title: &str,
    entries: &[Entry],
    allocators: &[Allocator],
    filter: &str,
) -> Result<Vec<String>> {
    let mut above = Vec::new();
    let mut failures = vec![Vec::new(); allocators.len()];
    let headings = [title, "bar", "to best"].into_iter();
    let mut table = Table::new(headings.chain(allocators.iter().map(|a| a.name.as_str())));
    for entry in entries.iter().filter(|entry| entry.name.contains(filter)) {
        let mut counts = Vec::new();
        for (column, allocator) in allocators.iter().enumerate() {
            let count = callgrind::per_round(
                &allocator.program,
                entry.name,
                entry.rounds,
                allocator.preload.as_deref(),
            );
            counts.push(match count {
                Ok(count) => count.map(|count| count / entry.per as f64),
                Err(error) if column == 0 => return Err(format!("{}: {error}", allocator.name)),
                // A peer that cannot run under valgrind, or that falls over, leaves the others alone.
                Err(error) => {
                    failures[column].push((entry.name, error));
                    None
                }
            });
        }
        if let Some(count) = counts[0].filter(|count| *count > entry.bar) {
            above.push(format!("{}: {count:.1}, and may cost {}", entry.about, entry.bar));
        }
        table.row(row(entry, &counts));
    }
    println!();
    table.print();
    if allocators.len() > 1 {
        println!("* the cheapest of the others; \"to best\" is ours divided by it");
        for allocator in allocators.iter().filter(|allocator| !allocator.version.is_empty()) {
            println!("{}: {}", allocator.name, allocator.version);
        }
    }
    for (allocator, failures) in allocators.iter().zip(failures) {
        if let Some((first, error)) = failures.first() {
            let (name, count) = (&allocator.name, failures.len());
            let reason = error.lines().next().unwrap_or_default();
            println!("{name}: {count} entries not counted, the first being {first}: {reason}");
        }
    }
    Ok(above)
}

/// The cells of an entry, the cheapest of the others marked.
fn row(entry: &Entry, counts: &[Option<f64>]) -> Vec<String> {
    let best = counts[1..].iter().flatten().copied().min_by(f64::total_cmp);
    let ratio = counts[0].zip(best).map(|(ours, best)| format!("{:.2}", ours / best));
    let mut cells = vec![entry.about.to_owned(), entry.bar.to_string(), ratio.unwrap_or_default()];
    for (column, count) in counts.iter().enumerate() {
        let mark = if column > 0 && *count == best { "*" } else { "" };
        cells.push(count.map_or("-".to_owned(), |count| format!("{mark}{count:.1}")));
    }
    cells
}

fn compile_c(scratch: &Path) -> Result<PathBuf> {
    let program = scratch.join("pairs");
    cmd("gcc")
        .dir(workspace::root()?)
        .args(["-O2", "-Wall", "-Wextra", "-pthread", "-o"])
        .arg(&program)
        .arg("benches/instructions/pairs.c")
        .run()?;
    Ok(program)
}

/// The C++ runtime, so that the system's allocator has an `operator new` too, if there is one.
fn cxx_runtime() -> Option<PathBuf> {
    let found = cmd("gcc").quiet().arg("-print-file-name=libstdc++.so.6").read().ok()?;
    // What gcc does not find it prints as it was asked.
    PathBuf::from(found.trim()).canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_marks_the_cheapest_of_the_others() {
        let entry = Entry { name: "x", about: "x", rounds: 1, per: 1, bar: 8.0 };
        let counts = [Some(6.0), Some(9.0), None, Some(7.5)];
        assert_eq!(row(&entry, &counts), ["x", "8", "0.80", "6.0", "9.0", "-", "*7.5"]);
        assert_eq!(row(&entry, &[Some(6.0)]), ["x", "8", "", "6.0"]);
    }
}
