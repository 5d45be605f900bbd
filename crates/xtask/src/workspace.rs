//! Where things are: the root of the workspace, its target directory, its crates, what was built.

use std::path::{Path, PathBuf};

use crate::shell::{Result, cargo, cmd};

/// The root of the workspace. Asked of cargo at run time, so that a moved checkout still works.
pub fn root() -> Result<PathBuf> {
    let manifest = cargo()
        .quiet()
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .read()?;
    match Path::new(manifest.trim()).parent() {
        Some(root) => Ok(root.to_owned()),
        None => Err(format!("cargo names no workspace: {manifest}")),
    }
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, or `target` in the root.
pub fn target_dir() -> Result<PathBuf> {
    let root = root()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where cargo was called.
        Some(dir) => std::path::absolute(dir).map_err(|e| format!("CARGO_TARGET_DIR: {e}"))?,
        None => root.join("target"),
    })
}

/// A directory of its own below the target directory for what a command leaves behind; it exists
/// when this returns.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let dir = target_dir()?.join("xtask").join(name);
    create_dir(&dir)?;
    Ok(dir)
}

/// Creates a directory and those above it.
pub fn create_dir(dir: &Path) -> Result {
    std::fs::create_dir_all(dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))
}

/// The directory names below `crates/`, in order.
pub fn crates() -> Result<Vec<String>> {
    let dir = root()?.join("crates");
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// The published name of the crate in `crates/DIRECTORY`.
pub fn package_name(directory: &str) -> String {
    match directory {
        "tiermalloc" | "xtask" => directory.to_owned(),
        tier => format!("tiermalloc-{tier}"),
    }
}

/// Builds `libtiermalloc.so` in release and returns where it lies.
///
/// An error if what was built does not replace `malloc`: everything measured with it would then be
/// a measurement of the system's allocator.
pub fn release_library() -> Result<PathBuf> {
    cargo()
        .dir(root()?)
        .args(["build", "--release", "--quiet", "--package", "tiermalloc-preload"])
        .run()?;
    let library = target_dir()?.join("release").join("libtiermalloc.so");
    check_library(&library)?;
    Ok(library)
}

/// An error unless this is a shared library that defines `malloc`.
pub fn check_library(library: &Path) -> Result {
    if !library.is_file() {
        return Err(format!("there is no {}", library.display()));
    }
    let symbols = cmd("nm").quiet().args(["-D", "--defined-only"]).arg(library).read()?;
    let defines = |name: &str| {
        symbols.lines().any(|line| line.split_whitespace().nth(2).is_some_and(|s| bare(s) == name))
    };
    if defines("malloc") && defines("free") {
        Ok(())
    } else {
        Err(format!("{} does not define malloc and free", library.display()))
    }
}

/// A symbol without its version: `malloc@@GLIBC_2.2.5` is `malloc`.
fn bare(symbol: &str) -> &str {
    symbol.split('@').next().unwrap_or(symbol)
}

/// The library that a user named on the command line, made absolute and checked, or else ours, built.
pub fn library_or_ours(named: Option<&PathBuf>) -> Result<PathBuf> {
    match named {
        Some(path) => {
            check_library(path)?;
            std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))
        }
        None => release_library(),
    }
}

/// Reads `NAME=PATH.so`, another allocator to compare with, from the command line.
pub fn parse_peer(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH.so")?;
    let path = Path::new(path);
    check_library(path)?;
    let path = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((name.to_owned(), path))
}
