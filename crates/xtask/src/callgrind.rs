//! Counting instructions with `valgrind --tool=callgrind`.
//!
//! callgrind does not replace `malloc` (memcheck does), so an allocator given by `LD_PRELOAD`, or
//! linked in, is what runs and what is counted. Counts are the same from run to run: they can be
//! guarded by a test where times cannot.
//!
//! The cost of one operation is the difference between a long and a short run, so that start-up,
//! the first fill of the caches and the exit cancel out.

use std::ffi::OsString;
use std::path::Path;

use crate::shell::{Cmd, Result, cmd, require};

/// The short run's share of the rounds that are counted: enough for caches to fill.
const WARM_UP: u64 = 10;

/// Seconds after which a run is given up: an allocator may spin for ever under valgrind, where one thread
/// runs at a time.
const LIMIT: &str = "120";

/// An error if this machine cannot count.
pub fn available() -> Result {
    require(&["valgrind", "gcc"], "apt-get install valgrind gcc")
}

/// Instructions per round of `PROGRAM ENTRY ROUNDS`, with a library preloaded if one is given, counted
/// over this number of rounds.
///
/// `None` if the program says, by exit status 77, that this allocator does not offer the entry.
pub fn per_round(
    program: &Path,
    entry: &str,
    rounds: u64,
    preload: Option<&Path>,
) -> Result<Option<f64>> {
    if !offered(program, entry, preload)? {
        return Ok(None);
    }
    let warm_up = (rounds / WARM_UP).max(2);
    let short = instructions(program, entry, warm_up, preload)?;
    let long = instructions(program, entry, warm_up + rounds, preload)?;
    Ok(Some(long.saturating_sub(short) as f64 / rounds as f64))
}

/// Asks the program itself, without valgrind.
fn offered(program: &Path, entry: &str, preload: Option<&Path>) -> Result<bool> {
    let asked = preloaded(cmd(program).quiet().args([entry, "1"]), preload);
    let status = asked.start().status().map_err(|e| format!("{}: {e}", program.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(77) => Ok(false),
        _ => Err(format!("{entry} with {}: {status}", shown(preload))),
    }
}

fn instructions(program: &Path, entry: &str, rounds: u64, preload: Option<&Path>) -> Result<u64> {
    count(under_valgrind(program).args([entry, &rounds.to_string()]), preload)
}

/// Instructions of a whole run of a program without arguments, its start-up and end included, with a variable set if
/// one is given.
pub fn whole_run(
    program: &Path,
    preload: Option<&Path>,
    variable: Option<(&str, &Path)>,
) -> Result<u64> {
    let command = under_valgrind(program);
    let command = match variable {
        Some((name, value)) => command.env(name, value),
        None => command,
    };
    count(command, preload)
}

/// Writes which instructions of a run of `PROGRAM ARGUMENTS` ran, by their addresses.
pub fn profile(program: &Path, args: &[&str], preload: &Path, to: &Path) -> Result {
    let file = format!("--callgrind-out-file={}", to.display());
    let command = cmd("valgrind")
        .quiet()
        .args(["--tool=callgrind", "--dump-instr=yes", &file])
        .arg(program)
        .args(args);
    count(command, Some(preload)).map(drop)
}

fn under_valgrind(program: &Path) -> Cmd {
    cmd("valgrind")
        .quiet()
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
}

fn count(command: Cmd, preload: Option<&Path>) -> Result<u64> {
    let (_, report) = preloaded(command.under("timeout", [LIMIT]), preload)
        .read_both()
        .map_err(|error| format!("valgrind, under {error}"))?;
    collected(&report).ok_or_else(|| format!("callgrind reported no count:\n{report}"))
}

fn preloaded(command: Cmd, preload: Option<&Path>) -> Cmd {
    match preload {
        Some(library) => command.env("LD_PRELOAD", OsString::from(library)),
        None => command.env_remove("LD_PRELOAD"),
    }
}

fn shown(preload: Option<&Path>) -> String {
    preload.map_or("no library".to_owned(), |library| library.display().to_string())
}

/// The count in callgrind's report, `==123== Collected : 456789`.
fn collected(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_count_is_read_from_the_report() {
        let report = "==7== Events    : Ir\n==7== Collected : 456789\n==7==\n";
        assert_eq!(super::collected(report), Some(456_789));
        assert_eq!(super::collected("==7== Events    : Ir\n"), None);
    }
}
