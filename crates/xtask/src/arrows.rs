//! `cargo xtask arrows`: the lint that keeps the tiers tiers.
//!
//! Four things that no compiler checks:
//! - a crate depends on those of our crates that [`ALLOWED`] grants it, and on no other;
//! - its tests may lean on more of ours, but only on what lies below it (above it in the table);
//! - no crate that ships has a build script (pure Rust, nothing to go wrong on a user's machine);
//! - `libtiermalloc.so` needs no shared library but libc: what it drags in, every program pays for
//!   at start-up.

use std::path::Path;

use crate::shell::{Result, cargo, cmd};
use crate::workspace;

/// Each crate and those of ours that it may depend on. The order is from the bottom up.
const ALLOWED: &[(&str, &[&str])] = &[
    ("tiermalloc-sync", &[]),
    ("tiermalloc-size-class", &[]),
    ("tiermalloc-page-map", &["tiermalloc-sync", "tiermalloc-size-class"]),
    ("tiermalloc-object-pool", &["tiermalloc-sync"]),
    (
        "tiermalloc-page-heap",
        &[
            "tiermalloc-sync",
            "tiermalloc-size-class",
            "tiermalloc-page-map",
            "tiermalloc-object-pool",
        ],
    ),
    (
        "tiermalloc-central-cache",
        &["tiermalloc-sync", "tiermalloc-size-class", "tiermalloc-page-heap"],
    ),
    (
        "tiermalloc-thread-cache",
        &["tiermalloc-sync", "tiermalloc-size-class", "tiermalloc-central-cache"],
    ),
    (
        "tiermalloc",
        &[
            "tiermalloc-sync",
            "tiermalloc-size-class",
            "tiermalloc-page-map",
            "tiermalloc-object-pool",
            "tiermalloc-page-heap",
            "tiermalloc-central-cache",
            "tiermalloc-thread-cache",
        ],
    ),
    ("tiermalloc-preload", &["tiermalloc"]),
    ("tiermalloc-archive", &["tiermalloc"]),
    ("tiermalloc-cli", &["tiermalloc-size-class", "tiermalloc"]),
    ("xtask", &[]),
];

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result {
    check_crates()?;
    if built_library()?.is_file() {
        check_library()
    } else {
        println!("libtiermalloc.so: not built, not checked (cargo build --release)");
        Ok(())
    }
}

/// The crates: dependencies and build scripts.
pub fn check_crates() -> Result {
    let root = workspace::root()?;
    let mut wrong = violations(&edges(&root, "normal,build")?, Kind::Ships);
    wrong.extend(violations(&edges(&root, "dev")?, Kind::Tests));
    for name in workspace::crates()? {
        if name != "xtask" && has_build_script(&root.join("crates").join(&name)) {
            wrong.push(format!("crates/{name} has a build script"));
        }
    }
    if wrong.is_empty() {
        println!("crates: every arrow goes down, no build scripts");
        return Ok(());
    }
    Err(format!("{}\n(the table is crates/xtask/src/arrows.rs)", wrong.join("\n")))
}

/// The built library: what it asks the dynamic linker for.
pub fn check_library() -> Result {
    let library = built_library()?;
    let dynamic = cmd("readelf").quiet().args(["--dynamic", "--wide"]).arg(&library).read()?;
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.split_once(']').map(|(name, _)| name))
        .collect();
    let extra: Vec<&str> =
        needed.iter().copied().filter(|name| !name.starts_with("libc.so.")).collect();
    if !extra.is_empty() {
        return Err(format!("libtiermalloc.so needs {}, and may need libc only", extra.join(", ")));
    }
    println!("libtiermalloc.so: needs {}", if needed.is_empty() { "nothing" } else { "libc only" });
    Ok(())
}

fn built_library() -> Result<std::path::PathBuf> {
    Ok(workspace::target_dir()?.join("release").join("libtiermalloc.so"))
}

fn has_build_script(dir: &Path) -> bool {
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let names_one = manifest
        .lines()
        .filter_map(|line| line.split_once('='))
        .any(|(key, value)| key.trim() == "build" && value.trim() != "false");
    dir.join("build.rs").exists() || names_one
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Dependencies of what ships: the table, to the letter.
    Ships,
    /// Dependencies of its tests: anything further down.
    Tests,
}

/// Each of our crates with those of ours that it depends on.
type Edges = Vec<(String, Vec<String>)>;

/// `cargo tree` at depth 1, for every target and feature: cfg'd dependencies are arrows too.
fn edges(root: &Path, kind: &str) -> Result<Edges> {
    let tree = cargo()
        .quiet()
        .dir(root)
        .args(["tree", "--workspace", "--depth", "1", "--prefix", "depth", "--no-dedupe"])
        .args(["--format", " {p}", "--all-features", "--target", "all", "--edges", kind])
        .read()?;
    Ok(parse(&tree))
}

/// Reads lines such as `0 tiermalloc v0.1.0 (path)` and, below each, `1 libc v0.2.186`.
/// Dependencies from elsewhere have no path and are left out.
fn parse(tree: &str) -> Edges {
    let mut edges = Edges::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next(), words.next()) else { continue };
        let ours = line.contains(" (") && !line.contains("(proc-macro)");
        match (depth, edges.last_mut()) {
            ("0", _) => edges.push((name.to_owned(), Vec::new())),
            (_, Some((_, below))) if ours => below.push(name.to_owned()),
            _ => {}
        }
    }
    edges
}

/// What is wrong with these dependencies, one sentence each.
fn violations(edges: &Edges, kind: Kind) -> Vec<String> {
    let rank = |name: &str| ALLOWED.iter().position(|(known, _)| *known == name);
    let mut wrong = Vec::new();
    for (name, below) in edges {
        let Some(place) = rank(name) else {
            wrong.push(format!("{name} is not in the table of allowed dependencies"));
            continue;
        };
        for dependency in below {
            let granted = match kind {
                Kind::Ships => ALLOWED[place].1.contains(&dependency.as_str()),
                Kind::Tests => rank(dependency).is_some_and(|there| there < place),
            };
            if !granted {
                let whose = if kind == Kind::Ships { "" } else { "the tests of " };
                wrong.push(format!("{whose}{name} may not depend on {dependency}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0 tiermalloc-sync v0.1.0 (a/crates/sync)
1 lock_api v0.4.14
1 tiermalloc-page-map v0.1.0 (a/crates/page-map)

0 tiermalloc-page-heap v0.1.0 (a/crates/page-heap)
1 tiermalloc-sync v0.1.0 (a/crates/sync)
";

    #[test]
    fn an_arrow_that_goes_up_is_named() {
        let wrong = violations(&parse(TREE), Kind::Ships);
        assert_eq!(wrong, ["tiermalloc-sync may not depend on tiermalloc-page-map"]);
    }

    #[test]
    fn tests_may_use_what_lies_below_and_nothing_above() {
        let edges = |from: &str, to: &str| vec![(from.to_owned(), vec![to.to_owned()])];
        let central_map = edges("tiermalloc-central-cache", "tiermalloc-page-map");
        assert!(violations(&central_map, Kind::Tests).is_empty());
        assert_eq!(violations(&central_map, Kind::Ships).len(), 1);
        let up = edges("tiermalloc-central-cache", "tiermalloc-thread-cache");
        assert_eq!(violations(&up, Kind::Tests).len(), 1);
    }

    #[test]
    fn a_new_crate_must_be_given_its_place() {
        let wrong = violations(&parse("0 tiermalloc-new v0.1.0 (a)\n"), Kind::Ships);
        assert_eq!(wrong.len(), 1);
    }

    #[test]
    fn the_table_itself_points_down() {
        for (place, (name, below)) in ALLOWED.iter().enumerate() {
            for dependency in *below {
                let there = ALLOWED.iter().position(|(known, _)| known == dependency);
                assert!(there.is_some_and(|there| there < place), "{name} -> {dependency}");
            }
        }
    }
}
