//! Running models and tests of the copy, and telling what came of it.
//!
//! A run has two halves: the build, whose failure says that the code is no code, and the tests, whose
//! failure is what a mutation is for. Only the second is bounded in time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use super::list::{Target, Witness};
use crate::loom;
use crate::shell::{Cmd, Result, cargo, cmd, last_lines};
use crate::workspace;

/// No run of models or tests takes longer (seconds). Where hanging is how a mutation shows, its entry
/// has a limit of its own.
const LIMIT: u64 = 300;
/// Nor does any build, even of everything on a busy machine (seconds).
const BUILD_LIMIT: u64 = 3600;

/// What came of a run of models or tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that ran passed: their names.
    Passed(BTreeSet<String>),
    /// Something failed: the name of a test, or how the process ended; and all that are known to have failed.
    Failed(String, BTreeSet<String>),
    /// It was still running when the time was up.
    Hangs,
    /// The compiler's last words.
    DoesNotCompile(String),
}

/// Where the copy is, and where what is built of it goes.
pub struct Bench {
    copy: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    /// A bench over the copy in `copy`, with builds and logs below `scratch`.
    pub fn new(copy: PathBuf, scratch: PathBuf) -> Self {
        Self { copy, scratch }
    }

    /// Builds and runs those of a crate's models or tests whose name contains one of `filters`, or all
    /// of them if there are none. `limit`: seconds for the run.
    pub fn run(
        &self,
        krate: &str,
        target: &Target,
        filters: &[&str],
        limit: Option<u64>,
    ) -> Result<Outcome> {
        let (built, output) =
            self.bounded(self.command(krate, target).arg("--no-run"), BUILD_LIMIT)?;
        if !built.success() {
            return Ok(Outcome::DoesNotCompile(compilers_words(&output)));
        }
        let command = self.command(krate, target).arg("--").args(filters);
        let (status, output) = self.bounded(command, limit.unwrap_or(LIMIT))?;
        Ok(judge(status, &output))
    }

    /// The names of all models of a crate; none if it has no models.
    pub fn models(&self, krate: &str) -> Result<BTreeSet<String>> {
        let tests = self.copy.join("crates").join(krate).join("tests");
        if !tests.join("loom.rs").is_file() && !tests.join("loom").join("main.rs").is_file() {
            return Ok(BTreeSet::new());
        }
        let list = self.command(krate, &Target::Loom).args(["--", "--list"]);
        let (status, output) = self.bounded(list, BUILD_LIMIT)?;
        if !status.success() {
            return Err(format!(
                "the models of {krate} cannot be listed:\n{}",
                compilers_words(&output)
            ));
        }
        let names = output.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    /// `cargo test` of one target of a crate of the copy.
    fn command(&self, krate: &str, target: &Target) -> Cmd {
        let command = match target {
            Target::Loom => {
                loom::test_command(&self.copy, &self.scratch.join("loom"), loom::PREEMPTIONS_QUICK)
            }
            Target::Test(file) => match file.as_str() {
                "lib" => cargo().args(["test", "--lib"]),
                file => cargo().args(["test", "--test", file]),
            }
            .dir(&self.copy)
            // The same cases each time, and no time spent on making a failure smaller.
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .arg("--target-dir")
            .arg(self.scratch.join("test")),
        };
        command.env("RUST_BACKTRACE", "0").args(["--package", &workspace::package_name(krate)])
    }

    /// Runs a command for so many seconds at most and returns its status and all that it wrote.
    fn bounded(&self, command: Cmd, seconds: u64) -> Result<(ExitStatus, String)> {
        let cannot = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        let path = self.scratch.join("output");
        // A file and not a pipe: a process that outlives its test would keep a pipe open.
        let log = fs::File::create(&path).map_err(|e| cannot(&path, e))?;
        let again = log.try_clone().map_err(|e| cannot(&path, e))?;
        // timeout's process group ends with it, whoever is left in it, even if we are not there to see.
        let mut child = command
            .under("timeout", ["--signal=KILL".to_owned(), seconds.to_string()])
            .quiet()
            .start()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .map_err(|e| format!("cannot run timeout: {e}"))?;
        let status = child.wait().map_err(|e| format!("cannot wait for timeout: {e}"))?;
        let group = format!("-{}", child.id());
        let _ = cmd("kill").quiet().args(["-KILL", "--", &group]).read();
        let output = fs::read(&path).map_err(|e| cannot(&path, e))?;
        Ok((status, String::from_utf8_lossy(&output).into_owned()))
    }
}

/// What a run of tests that ended so and wrote this has shown.
fn judge(status: ExitStatus, output: &str) -> Outcome {
    const KILLED: i32 = 9;
    if status.success() {
        return Outcome::Passed(names(output, "ok"));
    }
    if status.signal() == Some(KILLED) || status.code() == Some(128 + KILLED) {
        return Outcome::Hangs;
    }
    let failed = names(output, "FAILED");
    if let Some(name) = failed.first() {
        return Outcome::Failed(name.clone(), failed);
    }
    // The whole process died: cargo says how.
    let signal = output.lines().rev().find_map(|line| line.split_once("(signal: "));
    let how = match signal.and_then(|(_, rest)| rest.split_once(')')) {
        Some((signal, _)) => format!("signal {signal}"),
        None => format!("{status}: {}", last_lines(output, 1)),
    };
    Outcome::Failed(how, failed)
}

/// The names of tests with this result.
fn names(output: &str, result: &str) -> BTreeSet<String> {
    let of_line = |line: &str| {
        let (name, shown) = line.strip_prefix("test ")?.split_once(" ... ")?;
        (shown == result).then(|| name.trim_end_matches(" - should panic").to_owned())
    };
    output.lines().filter_map(of_line).collect()
}

/// The compiler's errors, without its warnings.
fn compilers_words(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let first = lines.iter().position(|line| line.starts_with("error")).unwrap_or(0);
    lines[first..].iter().take(8).copied().collect::<Vec<_>>().join("\n")
}

/// Whether the tests that ran are any that the witness names.
pub fn is_there(witness: &Witness, ran: &BTreeSet<String>) -> bool {
    match &witness.filter {
        Some(filter) => ran.iter().any(|name| name.contains(filter.as_str())),
        None => !ran.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "running 3 tests\n\
        test a::passes ... ok\n\
        test b_panics - should panic ... ok\n\
        test c_is_left_out ... ignored\n";

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_run_that_passes_says_what_ran() {
        assert_eq!(judge(status(0), LOG), Outcome::Passed(set(&["a::passes", "b_panics"])));
    }

    #[test]
    fn a_run_that_fails_says_which_test_or_how_the_process_died() {
        let failed = format!("{LOG}test d_fails ... FAILED\n");
        let expected = Outcome::Failed("d_fails".to_owned(), set(&["d_fails"]));
        assert_eq!(judge(status(101), &failed), expected);
        let died = "process didn't exit successfully: `x` (signal: 11, SIGSEGV: invalid memory)\n";
        let expected = Outcome::Failed("signal 11, SIGSEGV: invalid memory".to_owned(), set(&[]));
        assert_eq!(judge(status(101), died), expected);
        assert!(
            matches!(judge(status(101), "no idea\n"), Outcome::Failed(how, _) if how.ends_with("no idea"))
        );
    }

    #[test]
    fn a_run_that_was_ended_hangs_whatever_it_wrote() {
        let failed = format!("{LOG}test d_fails ... FAILED\n");
        assert_eq!(judge(ExitStatus::from_raw(9), &failed), Outcome::Hangs);
        assert_eq!(judge(status(137), LOG), Outcome::Hangs);
    }

    #[test]
    fn the_compilers_errors_are_told_and_not_its_warnings() {
        let output = "warning: unused\n  --> a.rs\nerror[E0425]: cannot find\n  --> b.rs\n";
        assert_eq!(compilers_words(output), "error[E0425]: cannot find\n  --> b.rs");
    }

    #[test]
    fn a_witness_is_there_if_a_test_of_its_name_has_run() {
        let ran = set(&["three_threads_exclude_each_other"]);
        let witness = |text: &str| Witness::try_from(text.to_owned()).unwrap();
        assert!(is_there(&witness("loom:three_threads"), &ran));
        assert!(is_there(&witness("test:a"), &ran));
        assert!(!is_there(&witness("test:a::four_threads"), &ran));
        assert!(!is_there(&witness("loom:"), &BTreeSet::new()));
    }

    #[test]
    fn a_command_that_outlives_its_time_is_ended_with_its_family() {
        let dir = std::env::temp_dir().join(format!("xtask-bounded-{}", std::process::id()));
        workspace::create_dir(&dir).unwrap();
        let bench = Bench::new(dir.clone(), dir.clone());
        let script = "echo begun; sleep 1000 & wait";
        let (status, output) = bench.bounded(cmd("sh").args(["-c", script]), 1).unwrap();
        assert_eq!(judge(status, &output), Outcome::Hangs);
        assert_eq!(output, "begun\n");
        let (status, output) =
            bench.bounded(cmd("sh").args(["-c", "echo done; exit 3"]), 60).unwrap();
        assert_eq!((status.code(), output.as_str()), (Some(3), "done\n"));
        let _ = fs::remove_dir_all(dir);
    }
}
