//! Whether an allocator is really the one that a program uses.
//!
//! Two checks. [`Whose`] asks a little program, once an allocator, from which file its `malloc`,
//! `free` and the rest come. [`Bindings`] asks the dynamic linker, once a row and allocator (in the
//! round that does not count), which `malloc` the measured program was bound to, in each of its
//! processes: a program that brings an allocator of its own, is linked statically, or drops
//! `LD_PRELOAD` on its way is found out.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Peer;
use crate::files::{Places, Result, at, create_dir, is_fresh, tool};
use crate::launch::{Job, Launcher};

/// The program that tells whose functions it has.
pub struct Whose {
    program: PathBuf,
}

impl Whose {
    /// Compiles it.
    pub fn build(places: &Places) -> Result<Self> {
        let source = places.benches().join("runner/c/whose.c");
        let program = places.scratch("launch")?.join("whose");
        if !is_fresh(&program, std::slice::from_ref(&source)) {
            let mut cc = Command::new("cc");
            tool(
                cc.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&program).arg(&source).arg("-ldl"),
            )?;
        }
        Ok(Self { program })
    }

    /// An error unless every function comes from this allocator's file.
    pub fn check(&self, launcher: &Launcher, peer: &Peer) -> Result {
        let functions = self.ask(launcher, peer.library.clone())?;
        let foreign = functions.iter().filter(|(_, file)| !is_of(peer, file));
        let foreign: Vec<&str> = foreign.map(|(name, _)| name.as_str()).collect();
        if foreign.is_empty() && !functions.is_empty() {
            return Ok(());
        }
        Err(format!("not in use when preloaded: {} from elsewhere", foreign.join(", ")))
    }

    /// The file of the system's C library.
    pub fn libc(&self, launcher: &Launcher) -> Result<PathBuf> {
        let functions = self.ask(launcher, None)?;
        let malloc = functions.into_iter().find(|(name, _)| name == "malloc");
        malloc.map(|(_, file)| file.into()).ok_or_else(|| "there is no malloc".into())
    }

    /// Pairs of a function and its file.
    fn ask(&self, launcher: &Launcher, preload: Option<PathBuf>) -> Result<Vec<(String, String)>> {
        let job = Job {
            program: self.program.clone(),
            args: Vec::new(),
            preload,
            environment: &[],
            dir: launcher.scratch().to_owned(),
            limit_s: 20,
        };
        let text = String::from_utf8_lossy(&launcher.run(&job)?.stdout).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(pairs.map(|(name, file)| (name.to_owned(), file.to_owned())).collect())
    }
}

/// Whether a file is the one that this allocator's functions come from.
fn is_of(peer: &Peer, file: &str) -> bool {
    match &peer.library {
        Some(library) => Path::new(file).canonicalize().is_ok_and(|file| file == *library),
        None => is_libc(file),
    }
}

fn is_libc(file: &str) -> bool {
    Path::new(file).file_name().is_some_and(|name| name.to_string_lossy().starts_with("libc.so"))
}

/// What the dynamic linker wrote about one run.
pub struct Bindings {
    dir: PathBuf,
}

impl Bindings {
    /// A place for what it writes, emptied.
    pub fn at(dir: PathBuf) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(at(&dir))?;
        }
        create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// The variables that make the dynamic linker write it.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let file = self.dir.join("ld").to_string_lossy().into_owned();
        [("LD_DEBUG", "bindings".to_owned()), ("LD_DEBUG_OUTPUT", file)]
    }

    /// An error unless some process was bound to this allocator's `malloc`, and none to another.
    pub fn check(self, peer: &Peer) -> Result {
        let mut bound = 0;
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            let text = fs::read(&path).map_err(at(&path))?;
            bound += check_process(peer, &mallocs(&String::from_utf8_lossy(&text)))?;
        }
        fs::remove_dir_all(&self.dir).map_err(at(&self.dir))?;
        if bound == 0 { Err("no process of it uses this malloc".into()) } else { Ok(()) }
    }
}

/// How many files of a process are bound to this allocator; an error if one is bound to another.
///
/// A binding to a file that is itself bound to this allocator is one to its address of `malloc` in the
/// procedure linkage table, as there is in executables that are not position-independent.
fn check_process(peer: &Peer, bindings: &[(String, String)]) -> Result<usize> {
    let ours: HashSet<&str> =
        bindings.iter().filter(|(_, to)| is_of(peer, to)).map(|(from, _)| from.as_str()).collect();
    for (from, to) in bindings {
        // What an allocator's own file asks for is its business.
        let of_allocator = from == to || peer.library.is_some() && is_of(peer, from);
        if !of_allocator && !is_of(peer, to) && !ours.contains(to.as_str()) {
            return Err(format!("{from} uses the malloc of {to}"));
        }
    }
    Ok(ours.len())
}

/// From which file to which the symbol `malloc` was bound, in the order of the text.
fn mallocs(text: &str) -> Vec<(String, String)> {
    let binding = |line: &str| {
        let (_, rest) = line.split_once("binding file ")?;
        let (files, symbol) = rest.split_once(": normal symbol `")?;
        let (from, to) = files.split_once(" to ")?;
        let bare = |file: &str| file.split(" [").next().unwrap_or(file).to_owned();
        (symbol.split('\'').next() == Some("malloc")).then(|| (bare(from), bare(to)))
    };
    text.lines().filter_map(binding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
      10:\tbinding file /usr/bin/gs [0] to /lib/libc.so.6 [0]: normal symbol `free' [GLIBC_2.2.5]
      10:\tbinding file /usr/bin/gs [0] to /lib/libc.so.6 [0]: normal symbol `malloc' [GLIBC_2.2.5]
      10:\tbinding file /lib/libX.so [0] to /lib/libX.so [0]: normal symbol `malloc_stats'
      10:\tbinding file /usr/bin/gs [0] to /lib/libX.so [0]: normal symbol `malloc'
";

    #[test]
    fn bindings_of_malloc_are_found_among_the_others() {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let expected = [pair("/usr/bin/gs", "/lib/libc.so.6"), pair("/usr/bin/gs", "/lib/libX.so")];
        assert_eq!(mallocs(TEXT), expected);
    }

    #[test]
    fn a_program_bound_to_another_malloc_is_found_out() {
        let system =
            Peer { name: "glibc".into(), library: None, executable: None, version: String::new() };
        let check = |text: &str| {
            let dir = std::env::temp_dir().join(format!("bench-bindings-{}", std::process::id()));
            let bindings = Bindings::at(dir.clone()).unwrap();
            fs::write(dir.join("ld.10"), text).unwrap();
            bindings.check(&system)
        };
        let first_two: String = TEXT.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(check(&first_two), Ok(()));
        assert_eq!(check(TEXT), Err("/usr/bin/gs uses the malloc of /lib/libX.so".into()));
        // Through the executable's own entry for it.
        let entry = "1: binding file /lib/libY.so [0] to /usr/bin/gs [0]: normal symbol `malloc'\n";
        assert_eq!(check(&format!("{first_two}{entry}")), Ok(()));
        assert!(check(entry).is_err());
        assert_eq!(check(""), Err("no process of it uses this malloc".into()));
    }
}
