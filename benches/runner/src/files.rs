//! Where things are, and how tools are run that are not measured.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What can go wrong here is told to a person, in a sentence.
pub type Result<T = ()> = std::result::Result<T, String>;

/// Makes an error of the file system name the file.
pub fn at(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

/// The directories that the measuring works in. `cargo xtask bench` names the first two.
pub struct Places {
    /// The root of the repository.
    pub root: PathBuf,
    /// The target directory of the workspace.
    pub target: PathBuf,
}

impl Places {
    /// As the environment says, or as this package lies in the repository.
    pub fn find() -> Result<Self> {
        let root = match std::env::var_os("TIERMALLOC_BENCH_ROOT") {
            Some(root) => PathBuf::from(root),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        };
        let root = root.canonicalize().map_err(at(&root))?;
        let target = match std::env::var_os("TIERMALLOC_BENCH_TARGET") {
            Some(target) => PathBuf::from(target),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// A directory for what the measuring builds and leaves behind; it exists when this returns.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.target.join("benches").join(name);
        create_dir(&dir)?;
        Ok(dir)
    }

    /// The directory of the benchmarks in the repository.
    pub fn benches(&self) -> PathBuf {
        self.root.join("benches")
    }
}

/// Creates a directory and those above it.
pub fn create_dir(dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(at(dir))
}

/// Writes a file whole.
pub fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(at(path))
}

/// Runs a tool to its end; what it wrote to standard output, or the end of what it said otherwise.
pub fn tool(command: &mut Command) -> Result<String> {
    let name = short(command.get_program());
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("cannot run {name}: {e}"),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}\n{}", output.status, last_lines(&stderr, 12)))
}

/// The cargo that started us, or the one in `PATH`.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where a program of this name lies in `PATH`, if it does.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Makes a program under a name of its own and then gives it its place: whoever runs the old one at this moment
/// is not in the way, nor is another thread that makes the same.
pub fn put_in_place(program: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let thread = std::thread::current().id();
    let fresh = program.with_extension(format!("{}-{thread:?}", std::process::id()));
    make(&fresh)?;
    std::fs::rename(&fresh, program).map_err(|e| format!("{}: {e}", program.display()))
}

/// Whether `product` is there and not older than each of its sources.
pub fn is_fresh(product: &Path, sources: &[PathBuf]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let Some(made) = time(product) else { return false };
    sources.iter().all(|source| time(source).is_some_and(|changed| changed <= made))
}

/// The last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A program as a person names it, without its directory.
pub fn short(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_is_named_and_quoted() {
        let error = tool(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.starts_with("sh: exit status: 3") && error.ends_with("why"), "{error}");
        assert_eq!(
            tool(&mut Command::new("no-such-tool")).unwrap_err(),
            "no-such-tool is not installed"
        );
    }

    #[test]
    fn what_is_not_there_is_not_fresh() {
        let here = PathBuf::from(file!());
        assert!(!is_fresh(Path::new("no-such-file"), std::slice::from_ref(&here)));
    }
}
