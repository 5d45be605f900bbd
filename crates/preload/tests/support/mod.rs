//! What the drivers share: the library that ships, built once; a C or C++ program, compiled; a run of it under the
//! library with a hard time limit.
//!
//! A driver is one line for each promise: `passes("zero_sizes.c", &[])`. The program checks itself; here its exit
//! status, its silence on stderr and its end in time are checked.
//!
//! `TIERMALLOC_LIB` chooses what is tested:
//!
//! | value | the programs run |
//! |---|---|
//! | unset | under the `libtiermalloc.so` of this workspace, built in release mode on the first use |
//! | a path | under that shared object; the archive is `libtiermalloc.a` beside it |
//! | `system` or empty | without any library: every promise that is not about our own messages must hold on glibc too |
//!
//! `TIERMALLOC_TEST_CONF`, if set, is the configuration that the programs run with, as in `pool=hardened`.
// Every driver is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod exempt;
pub mod places;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

unsafe extern "C" {
    /// kill(2): plain integers in and out.
    safe fn kill(pid: i32, signal: i32) -> i32;
}

const SIGKILL: i32 = 9;

/// No program here needs more than a few seconds; what is still there after this hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the programs run under.
enum Library {
    System,
    Shared(PathBuf),
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| match std::env::var_os("TIERMALLOC_LIB") {
        None => Library::Shared(build_library()),
        Some(value) if value.is_empty() || value == "system" => Library::System,
        // A relative path is meant from where the user stands; cargo starts tests in the package.
        Some(path) => {
            let path = PathBuf::from(path);
            let found = fs::canonicalize(&path)
                .or_else(|_| fs::canonicalize(workspace().join(&path)))
                .unwrap_or_else(|error| panic!("TIERMALLOC_LIB={}: {error}", path.display()));
            Library::Shared(found)
        }
    })
}

/// The shared object under test, or nothing in system mode.
pub fn shared_object() -> Option<&'static Path> {
    match library() {
        Library::System => None,
        Library::Shared(path) => Some(path),
    }
}

/// The archive that lies beside the shared object under test, or nothing in system mode.
pub fn static_archive() -> Option<PathBuf> {
    shared_object().map(|path| path.with_file_name("libtiermalloc.a"))
}

/// For tests that only make sense with the library: says so and returns true in system mode.
pub fn skipped_on_system(what: &str) -> bool {
    let system = shared_object().is_none();
    if system {
        eprintln!("skipped on the system's allocator: {what}");
    }
    system
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The target directory this very test was built into: cargo marks it with a `CACHEDIR.TAG`. That covers
/// `CARGO_TARGET_DIR`, `--target-dir` and `--target` alike.
pub fn target_directory() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this test");
    exe.ancestors()
        .skip(1)
        .find(|directory| directory.join("CACHEDIR.TAG").exists())
        .unwrap_or_else(|| panic!("no target directory above {}", exe.display()))
        .to_path_buf()
}

/// Builds what ships, in release mode, and returns the path of the shared object as cargo reports it.
fn build_library() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "tiermalloc-preload"])
        .args(["--package", "tiermalloc-archive"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target_directory())
        .current_dir(workspace())
        .output()
        .expect("cargo starts");
    let messages = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the library does not build:\n{complaints}");
    let path = messages
        .split('"')
        .find(|text| text.ends_with("/libtiermalloc.so"))
        .unwrap_or_else(|| panic!("cargo named no libtiermalloc.so:\n{messages}{complaints}"));
    PathBuf::from(path)
}

/// A fresh directory under the target directory for one test's files.
pub fn scratch(name: &str) -> PathBuf {
    let directory = target_directory().join("tmp/surface").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a scratch directory");
    directory
}

/// A program in `tests/c/`.
pub struct Source<'a> {
    pub name: &'a str,
    /// What goes behind the source on the compiler's command line, and a word for it in the name of the result.
    pub flags: &'a [&'a str],
    pub variant: &'a str,
}

/// The usual way to compile a program.
pub fn plain(name: &str) -> Source<'_> {
    Source { name, flags: &[], variant: "" }
}

/// A plugin for programs that load one.
pub fn plugin(name: &str) -> Source<'_> {
    Source { name, flags: &["-shared", "-fPIC"], variant: ".so" }
}

/// Compiles a program, once for each variant in one test binary, and returns the path of the result.
///
/// `-fno-builtin` keeps the compiler from knowing what malloc means: it would drop pairs of malloc and free.
pub fn compile(source: &Source<'_>) -> PathBuf {
    type Slot = Arc<OnceLock<PathBuf>>;
    static DONE: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);
    let output = format!("{}{}", source.name.replace('.', "_"), source.variant);
    let slot = {
        let mut done = DONE.lock().expect("no test panics while it holds this");
        Arc::clone(done.get_or_insert_default().entry(output.clone()).or_default())
    };
    slot.get_or_init(|| {
        let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source.name);
        let directory = target_directory().join("tmp/surface/bin");
        fs::create_dir_all(&directory).expect("a directory for programs");
        // Another cargo may run these tests at the same time: nobody sees a half-written program.
        let fresh = directory.join(format!("{output}.{}", std::process::id()));
        let program = directory.join(output);
        let compiler = if source.name.ends_with(".cc") { "g++" } else { "gcc" };
        let result = Command::new(compiler)
            .args(["-O1", "-g", "-pthread", "-fno-builtin", "-Wall", "-Wextra"])
            // Absurd sizes, freed pointers and foreign ones are what some programs are about.
            .args(["-Wno-deprecated-declarations", "-Wno-alloc-size-larger-than"])
            .args(["-Wno-use-after-free", "-Wno-free-nonheap-object", "-o"])
            .args([&fresh, &code])
            .args(source.flags)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        let complaints = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{compiler} {}: {complaints}", source.name);
        if !complaints.is_empty() {
            eprintln!("{compiler} {}: {complaints}", source.name);
        }
        fs::rename(&fresh, &program).expect("the program moves into place");
        program
    })
    .clone()
}

/// How a run ended.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A command whose malloc is the one under test.
pub fn preloaded(program: impl AsRef<OsStr>) -> Command {
    let mut command = bare(program);
    match shared_object() {
        None => command.env("TIERMALLOC_TEST_SYSTEM", "1"),
        Some(path) => command.env("LD_PRELOAD", path),
    };
    match std::env::var("TIERMALLOC_TEST_CONF") {
        Ok(configuration) => configured(command, &configuration),
        Err(_) => command,
    }
}

/// A command with a configuration. In the pool `system` the programs expect what they expect of that.
pub fn configured(mut command: Command, configuration: &str) -> Command {
    if shared_object().is_some() {
        command.env("TIERMALLOC_CONF", configuration);
        if configuration.contains("pool=system") {
            command.env("TIERMALLOC_TEST_SYSTEM", "1");
        }
    }
    command
}

/// The same without the library, whatever this test's own environment says.
pub fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in [
        "LD_PRELOAD",
        "TIERMALLOC_CONF",
        "TIERMALLOC_CONF_FILE",
        "TIERMALLOC_TEST_SYSTEM",
        "GLIBC_TUNABLES",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end, or kills it and everything it started when the limit is over and fails.
///
/// Output goes to files: a grandchild that outlives the program cannot hold the reader of a pipe.
pub fn run(command: &mut Command) -> Outcome {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let directory = scratch(&format!("run/{}.{number}", std::process::id()));
    let (out, err) = (directory.join("stdout"), directory.join("stderr"));
    command
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file for stdout"))
        .stderr(File::create(&err).expect("a file for stderr"))
        .process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = child.id() as i32;
    let start = Instant::now();
    let mut hung = None;
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            break status;
        }
        if start.elapsed() > LIMIT {
            hung = Some(threads_of(child.id()));
            kill(-group, SIGKILL);
            break child.wait().expect("waiting for a killed child");
        }
        std::thread::sleep(Duration::from_millis(4));
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let outcome = Outcome { status, stdout: read(&out), stderr: read(&err) };
    let _ = fs::remove_dir_all(&directory);
    if let Some(threads) = hung {
        panic!("{command:?} hangs after {LIMIT:?}\n{}{threads}", outcome.report());
    }
    outcome
}

/// Where the threads of a hanging program are: gdb's word where there is one, the kernel's otherwise.
fn threads_of(process: u32) -> String {
    let gdb = Command::new("timeout")
        .args(["20", "gdb", "--batch", "-nx", "-ex", "thread apply all backtrace 12", "-p"])
        .arg(process.to_string())
        .stdin(Stdio::null())
        .output();
    if let Ok(output) = gdb {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("#0") {
            return text;
        }
    }
    let mut text = String::new();
    for entry in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let word = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        text += &format!("{:?}: {} {}\n", entry.file_name(), word("wchan"), word("syscall").trim());
    }
    text
}

impl Outcome {
    /// Everything there is to say about a run that went wrong.
    pub fn report(&self) -> String {
        let signal = self.status.signal();
        format!(
            "{}{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            if signal == Some(14) {
                " (the program's own time limit: something hangs)"
            } else {
                ""
            },
            self.stdout,
            self.stderr
        )
    }
}

/// Runs a prepared command and demands success and silence on stderr.
pub fn succeeds(command: &mut Command) -> Outcome {
    let outcome = run(command);
    let good = outcome.status.success() && outcome.stderr.is_empty();
    assert!(good, "{command:?}: {}", outcome.report());
    // Figures that a program prints are worth seeing with --nocapture.
    print!("{}", outcome.stdout);
    outcome
}

/// Compiles a program of `tests/c/` and demands that it succeeds under the library.
pub fn passes(name: &str, arguments: &[&str]) {
    let configuration = std::env::var("TIERMALLOC_TEST_CONF").unwrap_or_default();
    passes_with(&configuration, name, arguments);
}

/// The same with a configuration, unless the program is exempt from its pool.
pub fn passes_with(configuration: &str, name: &str, arguments: &[&str]) {
    if let Some(reason) = exempt::reason(name, arguments, configuration) {
        println!("skipped: {name} with {configuration}: {reason}");
        return;
    }
    let mut command = preloaded(compile(&plain(name)));
    if !configuration.is_empty() {
        command = configured(command, configuration);
    }
    succeeds(command.args(arguments));
}
