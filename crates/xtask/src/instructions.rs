//! `cargo xtask instructions`: what one call costs, in instructions.
//!
//! Two programs in `benches/instructions/`, one in C (run with `libtiermalloc.so` preloaded) and one
//! in Rust (the allocator linked in, with LTO). Each runs a loop over 64 slots that frees the old
//! object of a slot and allocates a new one; the loop itself is part of the count. `--check`, which
//! CI runs, fails when a count is above its bar.

use std::path::{Path, PathBuf};

use crate::callgrind;
use crate::shell::{Result, cargo, cmd};
use crate::table::Table;
use crate::workspace;

/// What the program in C can count: its entry, what it is, and the most it may cost through
/// libtiermalloc.so.
const C: &[(&str, &str, Option<f64>)] = &[
    ("pair-32", "free + malloc, 32 bytes", Some(48.0)),
    ("pair-16", "free + malloc, 16 bytes", None),
    ("pair-100", "free + malloc, 100 bytes", None),
    ("pair-1000", "free + malloc, 1000 bytes", None),
    ("pair-4096", "free + malloc, 4096 bytes", None),
    ("pair-20000", "free + malloc, 20000 bytes", None),
    ("calloc-32", "free + calloc, 32 bytes", None),
    ("realloc", "realloc in place, 1001 to 1004 bytes", None),
    ("memalign", "free + posix_memalign, 64 at 64", None),
    ("sized-32", "free_sized + malloc, 32 bytes", None),
    ("new-32", "delete + new, 32 bytes", None),
    ("new-sized-32", "sized delete + new, 32 bytes", None),
];

/// The same for the program in Rust, through `GlobalAlloc`.
const RUST: &[(&str, &str, Option<f64>)] = &[
    ("pair-24", "dealloc + alloc, 24 bytes", Some(38.0)),
    ("pair-unknown", "dealloc + alloc, size known at run time", None),
    ("pair-1000", "dealloc + alloc, 1000 bytes", None),
    ("zeroed-24", "dealloc + alloc_zeroed, 24 bytes", None),
    ("realloc", "realloc in place, 1001 to 1004 bytes", None),
];

#[derive(clap::Args)]
pub struct Args {
    /// Fail when a count is above its bar
    #[arg(long)]
    check: bool,
    /// Count another allocator too, as a preloaded library (may be given again)
    #[arg(long = "peer", value_name = "NAME=PATH.so", value_parser = workspace::parse_peer)]
    peers: Vec<(String, PathBuf)>,
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
    run(&Args { check: true, peers: Vec::new(), filter: None })
}

/// One column of the table.
struct Allocator<'a> {
    name: &'a str,
    program: &'a Path,
    preload: Option<&'a Path>,
}

/// Counts, prints the tables, and returns what is above its bar.
fn count(args: &Args) -> Result<Vec<String>> {
    callgrind::available()?;
    let library = workspace::release_library()?;
    let scratch = workspace::scratch("instructions")?;
    let program = compile_c(&scratch)?;
    let [ours, system] = build_rust()?;

    let mut allocators = vec![
        Allocator { name: "tiermalloc", program: &program, preload: Some(&library) },
        Allocator { name: "system", program: &program, preload: None },
    ];
    for (name, path) in &args.peers {
        allocators.push(Allocator { name, program: &program, preload: Some(path) });
    }
    let filter = args.filter.as_deref().unwrap_or("");
    let mut above = table("C, preloaded", C, &allocators, filter)?;

    let linked = [
        Allocator { name: "tiermalloc", program: &ours, preload: None },
        Allocator { name: "system", program: &system, preload: None },
    ];
    above.extend(table("Rust, GlobalAlloc, LTO", RUST, &linked, filter)?);
    Ok(above)
}

/// One table: a row an entry, a column an allocator, the first being ours.
fn table(
    title: &str,
    entries: &[(&str, &str, Option<f64>)],
    allocators: &[Allocator],
    filter: &str,
) -> Result<Vec<String>> {
    let mut above = Vec::new();
    let headings = [title, "bar"].into_iter().chain(allocators.iter().map(|a| a.name));
    let mut table = Table::new(headings);
    for (entry, about, bar) in entries.iter().filter(|(entry, _, _)| entry.contains(filter)) {
        let mut cells = vec![(*about).to_owned(), bar.map_or(String::new(), |b| b.to_string())];
        for (column, allocator) in allocators.iter().enumerate() {
            let count = callgrind::per_round(allocator.program, entry, allocator.preload)
                .map_err(|error| format!("{}: {error}", allocator.name))?;
            cells.push(count.map_or("-".to_owned(), |count| format!("{count:.1}")));
            if let (0, Some(count), Some(bar)) = (column, count, bar) {
                if count > *bar {
                    above.push(format!("{about}: {count:.1}, and may cost {bar}"));
                }
            }
        }
        table.row(cells);
    }
    println!();
    table.print();
    Ok(above)
}

fn compile_c(scratch: &Path) -> Result<PathBuf> {
    let program = scratch.join("pairs");
    cmd("gcc")
        .dir(workspace::root()?)
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg("benches/instructions/pairs.c")
        .run()?;
    Ok(program)
}

/// Builds the program in Rust, once on tiermalloc and once on the system's allocator.
fn build_rust() -> Result<[PathBuf; 2]> {
    let target = workspace::target_dir()?.join("benches").join("instructions");
    cargo()
        .dir(workspace::root()?)
        .args(["build", "--release", "--quiet"])
        .args(["--manifest-path", "benches/instructions/Cargo.toml", "--target-dir"])
        .arg(&target)
        .run()?;
    let release = target.join("release");
    Ok([release.join("pairs-tiermalloc"), release.join("pairs-system")])
}
