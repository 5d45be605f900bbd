//! The allocators that are counted beside ours: libraries to preload, and programs in Rust.

use std::path::{Path, PathBuf};

use crate::shell::{Result, cargo, cmd};
use crate::{packages, workspace};

/// One column of a table.
pub struct Allocator {
    /// Its name.
    pub name: String,
    /// The program that has the entries.
    pub program: PathBuf,
    /// What is preloaded into it.
    pub preload: Option<PathBuf>,
}

/// An allocator that a package of Debian brings: name, package, and how its file is called.
const PACKAGED: &[(&str, &str, &str)] = &[
    ("gperftools", "libtcmalloc-minimal4", "libtcmalloc_minimal.so."),
    ("tbbmalloc", "libtbbmalloc2", "libtbbmalloc_proxy.so."),
    ("mimalloc-deb", "libmimalloc2.0", "libmimalloc.so."),
    ("jemalloc-deb", "libjemalloc2", "libjemalloc.so."),
];

/// Where the workspace of the programs in Rust is.
const GLOBAL: &str = "benches/global";

/// Installs the packages that bring allocators, and what building the others takes.
pub fn install() -> Result {
    let mut names: Vec<&str> = PACKAGED.iter().map(|(_, package, _)| *package).collect();
    names.extend(["g++", "make", "cmake", "pkg-config"]);
    packages::install(&names)
}

/// Libraries to preload: those of installed packages, and those that `cargo xtask bench` has built.
pub fn libraries() -> Result<Vec<(String, PathBuf)>> {
    let mut found = built(&workspace::target_dir()?.join("benches/peers"));
    for (name, package, file) in PACKAGED {
        match packaged(package, file) {
            Some(path) => found.push(((*name).to_owned(), path)),
            None => println!("{name} is left out: {package} is not installed (--install gets it)"),
        }
    }
    found.retain(|(name, path)| match workspace::check_library(path) {
        Ok(()) => true,
        Err(reason) => {
            println!("{name} is left out: {reason}");
            false
        }
    });
    Ok(found)
}

/// The file of an installed package whose name begins like this.
fn packaged(package: &str, file: &str) -> Option<PathBuf> {
    let files = cmd("dpkg").quiet().args(["--listfiles", package]).read().ok()?;
    let mut paths = files.lines().map(Path::new);
    let path = paths.find(|path| file_name(path).starts_with(file))?;
    path.canonicalize().ok()
}

/// `libNAME-VERSION.so` in a directory, by name.
fn built(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> =
        paths.filter_map(|path| Some((library_name(&file_name(&path))?, path))).collect();
    found.sort();
    found
}

/// The allocator in the name of a library, without its version.
fn library_name(file: &str) -> Option<String> {
    let (name, _version) = file.strip_prefix("lib")?.strip_suffix(".so")?.split_once('-')?;
    Some(name.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The names of the programs in Rust, the system's allocator first; ours is not among them.
pub fn linked_names() -> Result<Vec<String>> {
    let dir = workspace::root()?.join(GLOBAL).join("peers");
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name != "tiermalloc")
        .collect();
    names.sort_by_key(|name| (name != "system", name.clone()));
    Ok(names)
}

/// Builds the program in Rust on one allocator.
pub fn linked(name: &str) -> Result<Allocator> {
    let target = workspace::target_dir()?.join(GLOBAL);
    let program = format!("pairs-{name}");
    cargo()
        .dir(workspace::root()?.join(GLOBAL))
        .args(["build", "--release", "--quiet"])
        .args(["--package", &format!("global-{name}"), "--bin", &program, "--target-dir"])
        .arg(&target)
        .run()?;
    let program = target.join("release").join(program);
    Ok(Allocator { name: name.to_owned(), program, preload: None })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_allocators_name_is_read_from_its_library() {
        let name = |file| super::library_name(file);
        assert_eq!(name("libjemalloc-0.7.1+5.3.1-0-g1.so"), Some("jemalloc".into()));
        assert_eq!(name("libmimalloc3-0.1.49.so"), Some("mimalloc3".into()));
        assert_eq!(name("libmimalloc3-0.1.49.failed"), None);
        assert_eq!(name("mimalloc3.work"), None);
    }
}
