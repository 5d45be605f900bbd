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
use crate::peers::{OURS, Peer, system_version};
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
    let mut rows = Vec::new();
    // The reference comes first and tells the rows: nothing else is built for none.
    for name in names(places)? {
        let is_reference = name == REFERENCE;
        let is_asked = wanted.is_empty() || wanted.contains(&name);
        if !is_reference && (rows.is_empty() || !is_asked) {
            continue;
        }
        match executable(places, &name) {
            Ok(peer) => {
                if is_reference {
                    rows = self::rows(&peer, patterns)?;
                }
                peers.push(peer);
            }
            Err(reason) => absent.push((name, last_lines(&reason, 1))),
        }
    }
    Ok(Built { table: Table { section: Section::Global, rows, peers }, absent })
}

fn rows(peer: &Peer, patterns: &[String]) -> Result<Vec<Row>> {
    let wanted = list(peer)?.into_iter().filter(|(name, _)| is_wanted(name, patterns));
    let row = |(name, about): (String, String)| Row {
        section: Section::Global,
        name,
        about,
        work: Work::Linked,
        limit_s: 300,
    };
    Ok(wanted.map(row).collect())
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
    eprintln!("building {package}");
    tool(
        cargo()
            // In that directory, so that what it says about the compiler is obeyed.
            .current_dir(places.benches().join("global"))
            .args(["build", "--release", "--quiet", "--locked", "--package", &package])
            .args(["--bin", &package, "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&target),
    )?;
    let program = target.join("release").join(&package);
    // An error if the program's memory comes from elsewhere than its name says.
    let said = tool(Command::new(&program).arg("--allocator"))?;
    Ok(Peer {
        name: name.to_owned(),
        library: None,
        executable: Some(program),
        version: version(&said),
    })
}

/// Name, crate with version, and what the allocator says of itself, with tabs between them.
fn version(said: &str) -> String {
    let mut fields = said.lines().next().unwrap_or_default().split('\t').skip(1);
    let named = |text: Option<&str>| text.unwrap_or_default().trim().to_owned();
    let (package, own) = (named(fields.next()), named(fields.next()));
    match (package.is_empty(), own.is_empty()) {
        (true, true) => system_version(),
        (true, false) => own,
        (false, true) => package,
        (false, false) => format!("{package} ({own})"),
    }
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
    fn the_version_has_the_crate_and_what_the_allocator_says() {
        assert_eq!(version("x\tmimalloc 0.1.48\t3.3.2\n"), "mimalloc 0.1.48 (3.3.2)");
        assert_eq!(version("x\tmimalloc 0.1.48\t\n"), "mimalloc 0.1.48");
        assert_eq!(version("system\t\tglibc 2.36\n"), "glibc 2.36");
        assert!(!version("system").is_empty());
    }
}
