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
    /// Its version and where it is from, for a person.
    pub version: String,
}

/// A library that replaces malloc.
pub struct Library {
    /// Its name in the table.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its version and where it is from, for a person.
    pub version: String,
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
    names.extend(["g++", "make", "cmake"]);
    packages::install(&names)
}

/// Libraries to preload: those of installed packages, and those that `cargo xtask bench` has built.
pub fn libraries() -> Result<Vec<Library>> {
    let mut found = built(&workspace::target_dir()?.join("benches/peers"));
    for (name, package, file) in PACKAGED {
        match packaged(package, file) {
            Some((path, version)) => {
                let version = format!("{package} {version}");
                found.push(Library { name: (*name).to_owned(), path, version });
            }
            None => println!("{name} is left out: {package} is not installed (--install gets it)"),
        }
    }
    found.retain(|library| match workspace::check_library(&library.path) {
        Ok(()) => true,
        Err(reason) => {
            println!("{} is left out: {reason}", library.name);
            false
        }
    });
    Ok(found)
}

/// The file of an installed package whose name begins like this, and the package's version.
fn packaged(package: &str, file: &str) -> Option<(PathBuf, String)> {
    let files = cmd("dpkg").quiet().args(["--listfiles", package]).read().ok()?;
    let mut paths = files.lines().map(Path::new);
    let path = paths.find(|path| file_name(path).starts_with(file))?;
    let version = cmd("dpkg-query").quiet().args(["--show", "--showformat=${Version}", package]);
    Some((path.canonicalize().ok()?, version.read().ok()?))
}

/// `libNAME-VERSION.so` in a directory, by name.
fn built(dir: &Path) -> Vec<Library> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = paths
        .filter_map(|path| {
            let file = file_name(&path);
            let (name, version) = name_and_version(&file)?;
            let version = format!("built by cargo xtask bench from its crate, {version}");
            Some(Library { name: name.to_owned(), version, path })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The allocator and the version in the name of a library.
fn name_and_version(file: &str) -> Option<(&str, &str)> {
    file.strip_prefix("lib")?.strip_suffix(".so")?.split_once('-')
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
    Ok(Allocator { name: name.to_owned(), program, preload: None, version: crates(name)? })
}

/// The crates of the registry that a program in Rust takes, with their versions.
fn crates(name: &str) -> Result<String> {
    let tree = cargo()
        .quiet()
        .dir(workspace::root()?.join(GLOBAL))
        .args(["tree", "--depth", "1", "--prefix", "none", "--edges", "normal", "--package"])
        .arg(format!("global-{name}"))
        .read()?;
    Ok(registered(&tree).join(", "))
}

/// The lines of `cargo tree` that name no directory, and no mere interface.
fn registered(tree: &str) -> Vec<&str> {
    tree.lines().filter(|line| !line.contains('/') && !line.starts_with("libc ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocators_name_is_read_from_its_library() {
        let file = "libjemalloc-0.7.1+5.3.1-0-g1.so";
        assert_eq!(name_and_version(file), Some(("jemalloc", "0.7.1+5.3.1-0-g1")));
        assert_eq!(name_and_version("libmimalloc3-0.1.49.so"), Some(("mimalloc3", "0.1.49")));
        assert_eq!(name_and_version("libmimalloc3-0.1.49.failed"), None);
        assert_eq!(name_and_version("mimalloc3.work"), None);
    }

    #[test]
    fn a_crate_of_this_tree_is_none_of_the_registrys() {
        let tree =
            "global-x v0.0.0 (/a/peers/x)\nlibc v0.2.1\nmimalloc v0.1.52\npeer v0.0.0 (/a/peer)\n";
        assert_eq!(registered(tree), ["mimalloc v0.1.52"]);
    }
}
