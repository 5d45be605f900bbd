//! `cargo xtask real-programs`: programs that nobody here wrote, on the allocator.
//!
//! Each is a shell script in `crates/xtask/programs/`. It runs twice in a fresh directory, once plain
//! and once with the library preloaded into everything that the script starts, the shell included.
//! What it prints must be the same, and its exit status 0, within its time. So a script prints what
//! must not depend on the allocator (results, digests), and keeps times and addresses to itself.
//!
//! | module | what it is |
//! |---|---|
//! | [`programs`] | the list: name, script, what it needs, time limit |
//! | [`trial`] | one run of one script: environment, time limit, the end of whatever it left running |

mod programs;
mod trial;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shell::{Result, cmd, last_lines, which};
use crate::table::Table;
use crate::{packages, workspace};
use programs::{PROGRAMS, Program};
use trial::{Preload, Trial, run_script};

#[derive(clap::Args)]
pub struct Args {
    /// Only the quick ones, which CI runs
    #[arg(long)]
    quick: bool,
    /// Install what is missing, with apt-get
    #[arg(long)]
    install: bool,
    /// List the programs
    #[arg(long)]
    list: bool,
    /// Preload this library in place of libtiermalloc.so
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Run the programs with this configuration, as in `pool=hardened`
    #[arg(long, value_name = "KEY=VALUE,...")]
    conf: Option<String>,
    /// Only these programs
    names: Vec<String>,
}

/// How one program fared.
enum Outcome {
    Passed { plain: Duration, preloaded: Duration },
    Skipped(String),
    Failed(String),
}

pub fn run(args: &Args) -> Result {
    if args.list {
        for program in PROGRAMS {
            let quick = if program.quick { "quick" } else { "" };
            println!("{:<14} {quick:<6} {}", program.name, program.about);
        }
        return Ok(());
    }
    if let Some(unknown) = args.names.iter().find(|n| PROGRAMS.iter().all(|p| p.name != **n)) {
        return Err(format!("no program {unknown}; `cargo xtask real-programs --list`"));
    }
    let chosen: Vec<&Program> = PROGRAMS
        .iter()
        .filter(|p| !args.quick || p.quick)
        .filter(|p| args.names.is_empty() || args.names.iter().any(|name| name == p.name))
        .collect();
    if args.install {
        let wanted = chosen.iter().filter(|p| !missing(p).is_empty()).flat_map(|p| p.packages);
        packages::install(&wanted.copied().collect::<Vec<_>>())?;
    }

    let library = workspace::library_or_ours(args.library.as_ref())?;
    let scratch = workspace::scratch("real-programs")?;
    check_preload_works(&library)?;

    let mut table = Table::new(["program", "result", "plain", "preloaded", "ratio"]);
    let mut failures = Vec::new();
    for program in chosen {
        println!("--- {}: {}", program.name, program.about);
        let ours = Preload { library: &library, conf: args.conf.as_deref() };
        match compare(program, ours, &scratch.join(program.name))? {
            Outcome::Passed { plain, preloaded } => {
                let ratio = preloaded.as_secs_f64() / plain.as_secs_f64();
                let ratio = format!("{ratio:.2}");
                table.row([program.name, "ok", &seconds(plain), &seconds(preloaded), &ratio]);
            }
            Outcome::Skipped(reason) => {
                println!("skipped: {reason}");
                table.row([program.name, "skipped"]);
            }
            Outcome::Failed(reason) => {
                println!("FAILED: {reason}");
                println!("(kept: {})", scratch.join(program.name).display());
                table.row([program.name, "FAILED"]);
                failures.push(program.name);
            }
        }
    }
    println!();
    table.print();
    println!("(times are of one run each, for information)");
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", "))) }
}

/// The step of `ci`, with a configuration or without.
pub fn run_quick(conf: Option<&str>) -> Result {
    run(&Args {
        quick: true,
        install: false,
        list: false,
        library: None,
        conf: conf.map(str::to_owned),
        names: Vec::new(),
    })
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn missing(program: &Program) -> Vec<&'static str> {
    program.tools.iter().copied().filter(|tool| which(tool).is_none()).collect()
}

/// The dynamic linker ignores a library that it cannot load, with a line that a script may swallow:
/// a run would then test nothing.
fn check_preload_works(library: &Path) -> Result {
    let maps = cmd("cat").quiet().env("LD_PRELOAD", library).arg("/proc/self/maps").read()?;
    let file = library.canonicalize().map_err(|e| format!("{}: {e}", library.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if maps.contains(&name) {
        Ok(())
    } else {
        Err(format!("the dynamic linker does not load {}", library.display()))
    }
}

/// Runs one program plain and preloaded and compares.
fn compare(program: &Program, ours: Preload<'_>, scratch: &Path) -> Result<Outcome> {
    let missing = missing(program);
    if !missing.is_empty() {
        return Ok(Outcome::Skipped(format!(
            "not installed: {} (--install gets {})",
            missing.join(", "),
            program.packages.join(", ")
        )));
    }
    // Both run under one name, and what is kept has two.
    let run_as = |name: &str, preload: Option<Preload<'_>>| {
        let (current, kept) = (scratch.join("run"), scratch.join(name));
        let trial = run_script(program, preload, &current)?;
        let renamed = fs::remove_dir_all(&kept)
            .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .and_then(|()| fs::rename(&current, &kept));
        renamed.map_err(|e| format!("{}: {e}", kept.display()))?;
        Ok::<Trial, String>(trial)
    };
    let plain = run_as("plain", None)?;
    if plain.status == Some(77) {
        return Ok(Outcome::Skipped(last_lines(&plain.stderr, 1)));
    }
    if let Some(reason) = plain.failure() {
        return Ok(Outcome::Failed(format!("without the library: {reason}")));
    }
    let preloaded = run_as("preloaded", Some(ours))?;
    if let Some(reason) = preloaded.failure() {
        return Ok(Outcome::Failed(reason));
    }
    if let Some(difference) = first_difference(&plain.stdout, &preloaded.stdout) {
        return Ok(Outcome::Failed(format!("the output differs, {difference}")));
    }
    // Nothing is kept but what a failure needs.
    fs::remove_dir_all(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    Ok(Outcome::Passed { plain: plain.time, preloaded: preloaded.time })
}

impl Trial {
    /// Why this run is no good, if it is not.
    fn failure(&self) -> Option<String> {
        let said = last_lines(&self.stderr, 15);
        if self.timed_out {
            return Some(format!("not finished after {} s\n{said}", self.time.as_secs()));
        }
        if self.status != Some(0) {
            let status = self.status.map_or("a signal".to_owned(), |code| code.to_string());
            return Some(format!("the script ended with {status}\n{said}"));
        }
        // A child whose status the script did not look at may still have died of our hand.
        self.stderr
            .lines()
            .find(|line| line.starts_with("tiermalloc:") || line.contains("ERROR: ld.so:"))
            .map(|line| format!("on standard error: {line}"))
    }
}

fn first_difference(plain: &[u8], preloaded: &[u8]) -> Option<String> {
    if plain == preloaded {
        return None;
    }
    let (plain, preloaded) = (String::from_utf8_lossy(plain), String::from_utf8_lossy(preloaded));
    let (mut left, mut right) = (plain.lines(), preloaded.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let side = |line: Option<&str>| line.unwrap_or("(nothing more)").to_owned();
                return Some(format!("line {number}:\n  {}\n  {}", side(a), side(b)));
            }
        }
    }
    Some("in line ends".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_shown_from_both_sides() {
        assert_eq!(first_difference(b"a\nb\n", b"a\nb\n"), None);
        let shown = first_difference(b"a\nb\n", b"a\nc\n").unwrap_or_default();
        assert_eq!(shown, "line 2:\n  b\n  c");
        let shown = first_difference(b"a\n", b"a\nc\n").unwrap_or_default();
        assert_eq!(shown, "line 2:\n  (nothing more)\n  c");
    }

    #[test]
    fn a_script_that_hangs_is_ended_with_its_children() {
        let scratch = std::env::temp_dir().join(format!("xtask-trial-{}", std::process::id()));
        let program = Program {
            name: "hang",
            about: "",
            script: "sleep 1000 & sleep 1000",
            quick: false,
            seconds: 1,
            tools: &[],
            packages: &[],
        };
        let trial = run_script(&program, None, &scratch).expect("the script starts");
        assert!(trial.timed_out && trial.failure().is_some());
        fs::remove_dir_all(&scratch).expect("the directory is ours");
    }
}
