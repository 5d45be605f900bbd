//! One measured run: a child process, its time, its processor time, its peak of resident memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::files::{Places, Result, at, is_fresh, last_lines, put_in_place, tool};

/// Variables that a measured program gets from us; no others, so that two runs have the same
/// environment wherever they are started from.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    // Python's own allocator would hide most of its objects from the one that is measured, and its
    // hash seed would change the order of sets.
    ("PYTHONMALLOC", "malloc"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PERL_HASH_SEED", "0"),
];

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is preloaded into it.
    pub preload: Option<PathBuf>,
    /// Variables for its allocator.
    pub environment: &'static [(&'static str, &'static str)],
    /// Where it runs.
    pub dir: PathBuf,
    /// Seconds after which it counts as hung.
    pub limit_s: u32,
}

/// What a run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Seconds of processor time in the program.
    pub user_s: f64,
    /// Seconds of processor time in the kernel.
    pub system_s: f64,
    /// Peak resident memory, KiB.
    pub peak_kib: u64,
    /// Page faults without disk.
    pub minor_faults: u64,
    /// Involuntary context switches.
    pub preempted: u64,
}

/// A run that ended well.
pub struct Finished {
    /// What it took.
    pub usage: Usage,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
}

/// The helper that starts programs (`c/launch.c`), and where runs leave their output.
pub struct Launcher {
    program: PathBuf,
    scratch: PathBuf,
    /// What our library is configured with, which others do not look at.
    conf: Option<String>,
}

impl Launcher {
    /// Compiles the helper.
    pub fn build(places: &Places) -> Result<Self> {
        let dir = places.scratch("launch")?;
        let source = places.benches().join("runner/c/launch.c");
        let program = dir.join("launch");
        if !is_fresh(&program, std::slice::from_ref(&source)) {
            put_in_place(&program, |fresh| {
                let compile = |linkage: &[&str]| {
                    let mut cc = Command::new("cc");
                    cc.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(fresh).arg(&source);
                    tool(cc.args(linkage)).map(drop)
                };
                // A distribution may lack the static libc; then the floor of the peak is that of a small
                // dynamically linked program.
                compile(&["-static"]).or_else(|_| compile(&[]))
            })?;
        }
        Ok(Self { program, scratch: dir, conf: None })
    }

    /// The same, with a configuration for our library.
    pub fn configured(self, conf: Option<&str>) -> Self {
        Self { conf: conf.map(str::to_owned), ..self }
    }

    /// Runs a job to its end. An error says in a few lines why the run is no good.
    pub fn run(&self, job: &Job) -> Result<Finished> {
        self.run_with(job, &[])
    }

    /// As [`Launcher::run`], with variables for the program's environment.
    pub fn run_with(&self, job: &Job, variables: &[(&str, &str)]) -> Result<Finished> {
        // Experiments that mostly sleep run side by side.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file =
            |name: &str| self.scratch.join(format!("{name}-{}-{number}", std::process::id()));
        let (report, out, err) = (file("report"), file("stdout"), file("stderr"));
        let _ = fs::remove_file(&report);
        let mut command = Command::new(&self.program);
        command
            .arg(&report)
            .arg(job.limit_s.to_string())
            .arg(&job.program)
            .args(&job.args)
            .current_dir(&job.dir)
            .stdin(Stdio::null())
            .stdout(File::create(&out).map_err(at(&out))?)
            .stderr(File::create(&err).map_err(at(&err))?)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &job.dir)
            .envs(ENVIRONMENT.iter().copied())
            .envs(job.environment.iter().copied())
            .envs(variables.iter().copied());
        if let Some(conf) = &self.conf {
            command.env("TIERMALLOC_CONF", conf);
        }
        if let Some(library) = &job.preload {
            command.env("BENCH_PRELOAD", library);
        }
        let status = command.status().map_err(at(&self.program))?;
        let said = String::from_utf8_lossy(&fs::read(&err).map_err(at(&err))?).into_owned();
        let stdout = fs::read(&out).map_err(at(&out))?;
        let line = if status.success() {
            fs::read_to_string(&report).map_err(at(&report))?
        } else {
            return Err(last_lines(&said, 3));
        };
        for file in [&report, &out, &err] {
            let _ = fs::remove_file(file);
        }
        match parse_report(&line)? {
            (Ending::Exit(0), usage) => Ok(Finished { usage, stdout }),
            (ending, _) => {
                let said = last_lines(&said, 3);
                Err(format!(
                    "{}{}{said}",
                    ending.describe(job.limit_s),
                    if said.is_empty() { "" } else { ": " }
                ))
            }
        }
    }

    /// Where this keeps its files.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Exit(i32),
    Signal(i32),
    Late,
}

impl Ending {
    fn describe(self, limit_s: u32) -> String {
        match self {
            Self::Exit(status) => format!("ended with status {status}"),
            Self::Signal(number) => format!("ended by signal {number}"),
            Self::Late => format!("not finished after {limit_s} s"),
        }
    }
}

/// Reads the line that `launch` writes.
fn parse_report(line: &str) -> Result<(Ending, Usage)> {
    let wrong = || format!("not a report of launch: {line:?}");
    let (how, numbers) = line.trim().split_once(' ').ok_or_else(wrong)?;
    let numbers: Vec<u64> = numbers
        .split(' ')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong())?;
    let &[code, wall, user, system, peak, minor, _major, _voluntary, preempted] = &numbers[..]
    else {
        return Err(wrong());
    };
    let ending = match how {
        "exit" => Ending::Exit(code as i32),
        "signal" => Ending::Signal(code as i32),
        "late" => Ending::Late,
        _ => return Err(wrong()),
    };
    let usage = Usage {
        wall_s: wall as f64 / 1e9,
        user_s: user as f64 / 1e6,
        system_s: system as f64 / 1e6,
        peak_kib: peak,
        minor_faults: minor,
        preempted,
    };
    Ok((ending, usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_in_its_units() {
        let (ending, usage) =
            parse_report("exit 0 1500000000 1000000 20000 2048 300 1 2 9\n").unwrap();
        assert_eq!(ending, Ending::Exit(0));
        assert_eq!((usage.wall_s, usage.user_s, usage.system_s), (1.5, 1.0, 0.02));
        assert_eq!((usage.peak_kib, usage.minor_faults, usage.preempted), (2048, 300, 9));
        assert_eq!(parse_report("signal 11 1 1 1 1 1 1 1 1").unwrap().0, Ending::Signal(11));
        assert_eq!(parse_report("late 0 1 1 1 1 1 1 1 1").unwrap().0, Ending::Late);
        assert!(parse_report("exit 0 1").is_err() && parse_report("").is_err());
    }

    fn job(script: &str) -> Job {
        Job {
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            preload: None,
            environment: &[],
            dir: std::env::temp_dir(),
            limit_s: 1,
        }
    }

    #[test]
    fn a_run_is_measured_and_one_that_fails_says_why() {
        let launcher = Launcher::build(&Places::find().unwrap()).unwrap();
        let finished = launcher.run(&job("echo hello; sleep 0.1")).unwrap();
        assert_eq!(finished.stdout, b"hello\n");
        assert!((0.1..0.9).contains(&finished.usage.wall_s), "{:?}", finished.usage);
        assert!(finished.usage.user_s < 0.09, "{:?}", finished.usage);
        // The peak is that of a shell, not that of this test.
        assert!((100..8192).contains(&finished.usage.peak_kib), "{:?}", finished.usage);

        let error = |script: &str| launcher.run(&job(script)).err().unwrap();
        assert_eq!(error("echo why >&2; exit 3"), "ended with status 3: why");
        assert_eq!(error("kill -SEGV $$"), "ended by signal 11");
        assert_eq!(error("sleep 100"), "not finished after 1 s");
    }
}
