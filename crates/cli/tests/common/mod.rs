//! What the tests of the program share: a directory, a compiler, and `tiermalloc` itself.
#![allow(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What [`Dir::library`] writes to standard error when it is loaded.
pub const LOADED: &str = "[loaded]";

/// A directory that is removed at the end. Everyone may read it: some programs run as nobody.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tiermalloc-cli-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// A file of these bytes that may be executed.
    pub fn executable(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let draft = self.join(format!("{name}.draft"));
        fs::write(&draft, bytes).unwrap();
        let path = self.copy(&draft, name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A copy of a file, written by another process: a file that this one has open for writing, when
    /// another thread of it forks, could not be executed ("text file busy").
    pub fn copy(&self, from: impl AsRef<Path>, to: &str) -> PathBuf {
        let path = self.join(to);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let status = Command::new("cp").arg(from.as_ref()).arg(&path).status().unwrap();
        assert!(status.success());
        path
    }

    /// `tiermalloc` in a place that has no library beside it.
    pub fn copy_of_tiermalloc(&self, to: &str) -> PathBuf {
        self.copy(env!("CARGO_BIN_EXE_tiermalloc"), to)
    }

    /// Compiles a C program; none, with a note, where that is not possible.
    pub fn compile(&self, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
        let (input, output) = (self.join(format!("{name}.c")), self.join(name));
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        fs::write(&input, source).unwrap();
        let compiler = Command::new("gcc").arg("-o").arg(&output).arg(&input).args(flags).output();
        match compiler {
            Ok(result) if result.status.success() => Some(output),
            Ok(result) => skip(&format!("gcc {flags:?}: {}", text(&result.stderr))),
            Err(error) => skip(&format!("gcc: {error}")),
        }
    }

    /// A library that does nothing but say that it is there.
    pub fn library(&self, name: &str) -> Option<PathBuf> {
        let source = format!(
            "#include <unistd.h>\n\
             __attribute__((constructor)) static void f(void) {{ write(2, \"{LOADED}\", {}); }}\n",
            LOADED.len()
        );
        self.compile(name, &source, &["-shared", "-fPIC", "-Wno-unused-result"])
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Notes why a test does not run.
pub fn skip<T>(why: &str) -> Option<T> {
    eprintln!("skipped: {why}");
    None
}

/// A command in an environment that says nothing about preloading.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("TIERMALLOC_LIBRARY").env_remove("LD_PRELOAD").stdin(Stdio::null());
    command
}

/// `tiermalloc`.
pub fn tiermalloc() -> Command {
    command(env!("CARGO_BIN_EXE_tiermalloc"))
}

/// `tiermalloc run --library LIBRARY`.
pub fn run(library: &Path) -> Command {
    let mut command = tiermalloc();
    command.arg("run").arg("--library").arg(library);
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it and asserts its exit status; returns standard output and error.
#[track_caller]
pub fn outcome(command: &mut Command, status: i32) -> (String, String) {
    let Output { status: got, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(got.code(), Some(status), "{command:?}: {got}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// Asserts that it fails in this way without having loaded the library, and that its message has all
/// these words; returns the message.
#[track_caller]
pub fn refused(command: &mut Command, status: i32, words: &[&str]) -> String {
    let (stdout, stderr) = outcome(command, status);
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("tiermalloc: "), "{stderr}");
    assert!(!stderr.contains(LOADED), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no '{word}' in: {stderr}");
    }
    stderr
}
