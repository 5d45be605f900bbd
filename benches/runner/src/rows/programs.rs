//! Real programs: what people run, on objects of the sizes and lives that they have there.
//!
//! Each is a script in `benches/programs/`: `bash SCRIPT prepare SCALE` once, on the system's
//! allocator, makes what the program works on, and `bash SCRIPT run SCALE`, which is measured,
//! becomes that program. What it prints must be the same on every allocator.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Row, Work, is_wanted};
use crate::files::{Places, Result, at, create_dir, tool, which};
use crate::record::Section;

struct Program {
    name: &'static str,
    about: &'static str,
    /// What must be in `PATH`.
    tools: &'static [&'static str],
    /// The packages that bring them.
    packages: &'static [&'static str],
    /// Whether it is linked with an allocator of its own, which a preloaded one replaces.
    own_allocator: bool,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "gcc",
        about: "g++ -O2 on C++ full of templates and containers",
        tools: &["g++"],
        packages: &["g++"],
        own_allocator: false,
    },
    Program {
        name: "ghostscript",
        about: "a PostScript program drawn into a bitmap",
        tools: &["gs"],
        packages: &["ghostscript"],
        own_allocator: false,
    },
    Program {
        name: "lua",
        about: "tables, strings, trees, coroutines, and the collector",
        tools: &["lua5.4"],
        packages: &["lua5.4"],
        own_allocator: false,
    },
    Program {
        name: "perl",
        about: "hashes, strings, regular expressions, sorting, closures",
        tools: &["perl"],
        packages: &["perl"],
        own_allocator: false,
    },
    Program {
        name: "python",
        about: "objects, dictionaries, strings, json; every object from malloc",
        tools: &["python3"],
        packages: &["python3"],
        own_allocator: false,
    },
    Program {
        name: "redis",
        about: "a server with values of many sizes, and the load on it",
        tools: &["redis-server", "redis-benchmark", "redis-cli"],
        packages: &["redis-server", "redis-tools"],
        own_allocator: true,
    },
    Program {
        name: "sqlite",
        about: "a database in memory: joins, grouping, text, json",
        tools: &["sqlite3"],
        packages: &["sqlite3"],
        own_allocator: false,
    },
];

/// Names of rows that cannot be run here, each with the reason.
type Missing = Vec<(String, String)>;

/// The rows whose names are asked for; and those that cannot be run here.
pub fn rows(places: &Places, patterns: &[String], libc: &Path) -> Result<(Vec<Row>, Missing)> {
    let (mut rows, mut absent) = (Vec::new(), Vec::new());
    // Two series at the same time must not have one directory.
    let of_series = places.scratch("programs")?.join(std::process::id().to_string());
    for program in PROGRAMS.iter().filter(|program| is_wanted(program.name, patterns)) {
        let missing: Vec<&str> =
            program.tools.iter().copied().filter(|tool| which(tool).is_none()).collect();
        if !missing.is_empty() {
            let reason = format!(
                "not installed: {} (package {}; --install gets it)",
                missing.join(", "),
                program.packages.join(", ")
            );
            absent.push((program.name.to_owned(), reason));
            continue;
        }
        rows.push(Row {
            section: Section::Real,
            name: program.name.to_owned(),
            about: program.about.to_owned(),
            work: Work::Script {
                script: places.benches().join(format!("programs/{}.sh", program.name)),
                dir: of_series.join(program.name),
                libc: program.own_allocator.then(|| libc.to_owned()),
            },
            limit_s: 300,
        });
    }
    Ok((rows, absent))
}

/// Lets a script make what its program works on, in an empty directory.
pub fn prepare(script: &Path, dir: &Path, scale: f64) -> Result {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(at(dir))?;
    }
    create_dir(dir)?;
    let mut bash = Command::new("bash");
    bash.current_dir(dir).arg(script).args(["prepare", &scale.to_string()]);
    bash.env("LC_ALL", "C.UTF-8").env_remove("LD_PRELOAD");
    tool(&mut bash).map(drop)
}

/// Names and what they are, for `--list`.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROGRAMS.iter().map(|program| (program.name, program.about))
}

/// The packages of all of them.
pub fn packages() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().flat_map(|program| program.packages.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_its_script() {
        let dir = Places::find().unwrap().benches().join("programs");
        for program in PROGRAMS {
            assert!(dir.join(format!("{}.sh", program.name)).is_file(), "{}", program.name);
        }
    }
}
