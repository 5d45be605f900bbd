//! One run of one script, plain or with a library preloaded.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::programs::Program;
use crate::shell::{Result, cmd};
use crate::workspace;

/// What a script's programs are to load first, and its configuration.
#[derive(Clone, Copy)]
pub struct Preload<'a> {
    pub library: &'a Path,
    pub conf: Option<&'a str>,
}

/// What came of a run.
pub struct Trial {
    /// The exit status; `None` if a signal ended the script.
    pub status: Option<i32>,
    /// What it printed, to be compared.
    pub stdout: Vec<u8>,
    /// What it said otherwise, for messages.
    pub stderr: String,
    /// From start to end.
    pub time: Duration,
    /// Whether it had to be ended.
    pub timed_out: bool,
}

/// Runs a script in `dir`, which is emptied first and has the script, what it printed, and the
/// directory `work` in which it ran. Runs that are to be compared must use the same `dir`:
/// directories end up in output, a compiler's debug information for one.
pub fn run_script(program: &Program, preload: Option<Preload<'_>>, dir: &Path) -> Result<Trial> {
    let cannot = |e: std::io::Error| format!("{}: {e}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(cannot)?;
    }
    let work = dir.join("work");
    workspace::create_dir(&work)?;
    fs::write(dir.join("script.sh"), program.script).map_err(cannot)?;
    // Files and not pipes: a child that outlives the script would keep a pipe open.
    let stdout = fs::File::create(dir.join("stdout")).map_err(cannot)?;
    let stderr = fs::File::create(dir.join("stderr")).map_err(cannot)?;

    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "../script.sh"])
        .current_dir(&work)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // The whole family can then be ended by one signal.
        .process_group(0);
    clean_environment(&mut command, &work);
    if let Some(Preload { library, conf }) = preload {
        command.env("LD_PRELOAD", library);
        if let Some(conf) = conf {
            command.env("TIERMALLOC_CONF", conf);
        }
    }

    let began = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("cannot run bash: {e}"))?;
    let ended = wait(&mut child, Duration::from_secs(program.seconds));
    let time = began.elapsed();
    end_family(&mut child, ended.is_none());
    Ok(Trial {
        status: ended.and_then(|status| status.code()),
        stdout: fs::read(dir.join("stdout")).map_err(cannot)?,
        stderr: String::from_utf8_lossy(&fs::read(dir.join("stderr")).map_err(cannot)?)
            .into_owned(),
        time,
        timed_out: ended.is_none(),
    })
}

/// Takes out what cargo sets for us and what would make two runs differ.
fn clean_environment(command: &mut Command, work: &Path) {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let of_cargo = name_text.starts_with("CARGO_") && name_text != "CARGO_HOME";
        let of_compilers = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
        let of_loader = ["LD_PRELOAD", "LD_LIBRARY_PATH", "TIERMALLOC_CONF"];
        if of_cargo || of_compilers.contains(&&*name_text) || of_loader.contains(&&*name_text) {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("TMPDIR", work)
        // Python's own allocator would otherwise hide most of its objects from the library, and its
        // hash seed would change the order of sets.
        .env("PYTHONMALLOC", "malloc")
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PERL_HASH_SEED", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
}

/// The exit status, or `None` if the child is still running when the time is up.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if began.elapsed() >= limit {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends what is left of the child's process group, which has the child's number and which we made:
/// the script itself if it is late, and servers that a failed script did not stop.
fn end_family(child: &mut Child, running: bool) {
    let group = format!("-{}", child.id());
    let _ = cmd("kill").quiet().args(["-KILL", "--", &group]).read();
    if running {
        let _ = child.wait();
    }
}
