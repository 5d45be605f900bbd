//! The copy of the workspace that is broken in place of the tree.
//!
//! It lies below the target directory and is kept, so that what was built of it is there the next
//! time. Cargo knows by a file's time whether to build it anew, so a file is written only where its
//! contents differ.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::list::Mutation;
use crate::shell::Result;
use crate::workspace;

/// What a build of the workspace reads, by name in its root.
const PARTS: &[&str] = &["Cargo.toml", "Cargo.lock", "crates"];

/// The copy.
pub struct Tree {
    root: PathBuf,
    copy: PathBuf,
}

impl Tree {
    /// The copy in `copy` of the workspace in `root`, made or brought up to date.
    pub fn new(root: PathBuf, copy: PathBuf) -> Result<Self> {
        let tree = Self { root, copy };
        tree.renew()?;
        Ok(tree)
    }

    /// The root of the copy.
    pub fn dir(&self) -> &Path {
        &self.copy
    }

    fn renew(&self) -> Result {
        workspace::create_dir(&self.copy)?;
        for part in PARTS {
            mirror(&self.root.join(part), &self.copy.join(part))?;
        }
        Ok(())
    }

    /// Breaks the copy of a crate while `work` runs, and mends it afterwards.
    pub fn broken<T>(
        &self,
        krate: &str,
        mutation: &Mutation,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let file = self.copy.join("crates").join(krate).join(&mutation.file);
        let whole = read(&file)?;
        write(&file, &mutation.apply(&whole)?)?;
        let result = work();
        write(&file, &whole)?;
        result
    }
}

/// Makes `to` the same as `from`, a file or a directory, and writes only what differs.
fn mirror(from: &Path, to: &Path) -> Result {
    if from.is_dir() {
        if to.is_file() {
            fs::remove_file(to).map_err(|e| format!("{}: {e}", to.display()))?;
        }
        workspace::create_dir(to)?;
        let names = names(from)?;
        for gone in names_of_copy(to)?.difference(&names) {
            let path = to.join(gone);
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| format!("{}: {e}", path.display()))?;
        }
        return names.iter().try_for_each(|name| mirror(&from.join(name), &to.join(name)));
    }
    let contents = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    if fs::read(to).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    fs::write(to, contents).map_err(|e| format!("{}: {e}", to.display()))
}

/// What is in a directory of the tree, without what is built or hidden.
fn names(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut names = names_of_copy(dir)?;
    names.retain(|name| {
        name != OsStr::new("target") && !name.as_os_str().as_encoded_bytes().starts_with(b".")
    });
    Ok(names)
}

fn names_of_copy(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let cannot = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::read_dir(dir)
        .map_err(cannot)?
        .map(|entry| Ok(PathBuf::from(entry.map_err(cannot)?.file_name())))
        .collect()
}

/// Reads a file as text.
pub fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

fn write(file: &Path, text: &str) -> Result {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations::list;

    /// A directory that goes when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            for part in ["root/crates/a/src", "root/crates/a/target", "root/crates/a/.hidden"] {
                fs::create_dir_all(dir.join(part)).unwrap();
            }
            for (file, text) in [("Cargo.toml", "w"), ("Cargo.lock", "l"), ("README.md", "r")] {
                fs::write(dir.join("root").join(file), text).unwrap();
            }
            fs::write(dir.join("root/crates/a/src/lib.rs"), "fn one() {}").unwrap();
            Self(dir)
        }
        fn tree(&self) -> Tree {
            Tree::new(self.0.join("root"), self.0.join("copy")).unwrap()
        }
        fn lib(&self, of: &str) -> PathBuf {
            self.0.join(of).join("crates/a/src/lib.rs")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_copy_has_what_a_build_reads_and_nothing_else() {
        let scratch = Scratch::new("copy");
        fs::create_dir_all(scratch.0.join("copy/crates/gone/src")).unwrap();
        fs::write(scratch.0.join("copy/crates/a"), "a file where a directory comes").unwrap();
        let tree = scratch.tree();
        let top: Vec<PathBuf> = names_of_copy(tree.dir()).unwrap().into_iter().collect();
        assert_eq!(top, ["Cargo.lock", "Cargo.toml", "crates"].map(PathBuf::from));
        let inside = names_of_copy(&tree.dir().join("crates/a")).unwrap();
        assert_eq!(inside, BTreeSet::from([PathBuf::from("src")]));
        assert!(!tree.dir().join("crates/gone").exists());
    }

    #[test]
    fn what_has_not_changed_is_not_written_again() {
        let scratch = Scratch::new("time");
        scratch.tree();
        let time = |file: &Path| fs::metadata(file).unwrap().modified().unwrap();
        let (lib, lock) = (scratch.lib("copy"), scratch.0.join("copy/Cargo.lock"));
        let old = std::time::SystemTime::UNIX_EPOCH;
        for file in [&lib, &lock] {
            fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
        }
        fs::write(scratch.lib("root"), "fn other() {}").unwrap();
        scratch.tree();
        assert_eq!(time(&lock), old);
        assert!(time(&lib) > old);
        assert_eq!(read(&lib).unwrap(), "fn other() {}");
    }

    #[test]
    fn a_crate_is_broken_while_the_work_runs_and_the_tree_never() {
        let scratch = Scratch::new("broken");
        let tree = scratch.tree();
        let text = "[[mutation]]\nname = 'n'\nfile = 'src/lib.rs'\nold = 'one'\nnew = 'two'\n\
                    caught_by = ['loom:']";
        let mutation = list::parse(text).unwrap().remove(0);
        let seen = tree.broken("a", &mutation, || read(&scratch.lib("copy"))).unwrap();
        assert_eq!(seen, "fn two() {}");
        let failed = tree.broken("a", &mutation, || {
            assert_eq!(read(&scratch.lib("root")).unwrap(), "fn one() {}");
            Err::<(), _>("no".to_owned())
        });
        assert_eq!(failed, Err("no".to_owned()));
        assert_eq!(read(&scratch.lib("copy")).unwrap(), "fn one() {}");
    }
}
