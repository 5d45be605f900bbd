//! Workloads in Rust, the allocator linked in as the global one.
//!
//! `benches/global/` is a workspace with a package for each allocator, whose executable `global-NAME`
//! has that allocator and no other. Each knows the same workloads: `global-NAME --list` prints `name<TAB>description` for each, and
//! `global-NAME WORKLOAD --scale F` runs one. Allocators whose executable did not build are named with
//! the reason and left out.

use std::fs;
use std::process::Command;

use super::{Row, Table, Work, is_wanted};
use crate::files::{Places, Result, at, cargo, last_lines, tool};
use crate::peers::{OURS, Peer};
use crate::record::Section;

/// What the figures of this section are relative to.
pub const REFERENCE: &str = "system";

/// What came of building the executables.
pub struct Built {
    /// The table.
    pub table: Table,
    /// Allocators that are not in it, and why.
    pub absent: Vec<(String, String)>,
}

/// Builds the executables, those wanted or all, and asks them for their workloads.
pub fn build(places: &Places, patterns: &[String], wanted: &[String]) -> Result<Built> {
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for name in names(places)? {
        let asked = wanted.is_empty() || name == REFERENCE || wanted.contains(&name);
        if !asked {
            continue;
        }
        match executable(places, &name) {
            Ok(peer) => peers.push(peer),
            Err(reason) => absent.push((name, last_lines(&reason, 1))),
        }
    }
    let rows = peers.first().map_or_else(|| Ok(Vec::new()), list)?;
    let rows = rows
        .into_iter()
        .filter(|(name, _)| is_wanted(name, patterns))
        .map(|(name, about)| Row {
            section: Section::Global,
            name,
            about,
            work: Work::Linked,
            limit_s: 300,
        })
        .collect();
    Ok(Built { table: Table { section: Section::Global, rows, peers }, absent })
}

/// The allocators that have a package there: the reference first, ours second, the others by name.
pub fn names(places: &Places) -> Result<Vec<String>> {
    let dir = places.benches().join("global/peers");
    let entries = fs::read_dir(&dir).map_err(at(&dir))?.filter_map(|entry| entry.ok());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let rank = |name: &str| match name {
        REFERENCE => 0,
        OURS => 1,
        _ => 2,
    };
    names.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    Ok(names)
}

fn executable(places: &Places, name: &str) -> Result<Peer> {
    let package = format!("global-{name}");
    let target = places.scratch("global")?;
    let manifest = places.benches().join("global/Cargo.toml");
    let cargo = |command: &str| {
        let mut cargo = cargo();
        // In that directory, so that what it says about the compiler is obeyed.
        cargo.current_dir(places.benches().join("global")).arg(command);
        cargo.args(["--locked", "--package", &package, "--manifest-path"]).arg(&manifest);
        cargo
    };
    eprintln!("building {package}");
    tool(cargo("build").args(["--release", "--quiet", "--target-dir"]).arg(&target))?;
    let tree = tool(cargo("tree").args(["--depth", "1", "--prefix", "none", "--edges", "normal"]))?;
    Ok(Peer {
        name: name.to_owned(),
        library: None,
        executable: Some(target.join("release").join(&package)),
        version: version(&tree, &package),
    })
}

/// The crates of the registry among those that a package depends on.
fn version(tree: &str, package: &str) -> String {
    let crates = tree.lines().filter(|line| !line.starts_with(package) && !line.contains('/'));
    let named: Vec<&str> = crates.map(|line| line.split(" (").next().unwrap_or(line)).collect();
    if named.is_empty() { "of this repository, or the system's".into() } else { named.join(", ") }
}

fn list(peer: &Peer) -> Result<Vec<(String, String)>> {
    let Some(program) = &peer.executable else { return Ok(Vec::new()) };
    let text = tool(Command::new(program).arg("--list"))?;
    Ok(parse_list(&text))
}

fn parse_list(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs.map(|(name, about)| (name.trim().to_owned(), about.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_listed_with_a_tab_between_name_and_description() {
        let list = parse_list("larson\tslots and threads\n\nvec\tgrowing\nnoise\n");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0], ("larson".into(), "slots and threads".into()));
    }

    #[test]
    fn the_version_is_that_of_the_crates_of_the_registry() {
        let tree = "global-x v0.0.0 (/a/peers/x)\nmimalloc v0.1.48\nworkloads v0.0.0 (/a/b)\n";
        assert_eq!(version(tree, "global-x"), "mimalloc v0.1.48");
        assert_eq!(version("global-x v0.0.0 (/a)\n", "global-x"), "of this repository, or the system's");
    }
}
