//! The allocators that are preloaded: what there is, where it is from, and whether it is really used.
//!
//! | name | what it is |
//! |---|---|
//! | `glibc` | nothing preloaded |
//! | `tiermalloc` | `target/release/libtiermalloc.so`, built before the series begins |
//! | `mimalloc3` ... | the newest C and C++ sources that crates carry, built by [`build`] |
//! | `gperftools` ... | packages of the distribution |
//! | `NAME=PATH.so` | what the user names |

pub mod build;
mod build_tcmalloc;
mod in_use;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{Places, Result, at, cargo, tool};
use crate::launch::Launcher;

pub use in_use::Bindings;
use in_use::Whose;

/// The name under which our own library takes part.
pub const OURS: &str = "tiermalloc";
/// The name of the system's allocator.
pub const SYSTEM: &str = "glibc";

/// An allocator: the system's own, a library to preload, or a program that it is linked into.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name in tables.
    pub name: String,
    /// The library that is preloaded, if one is.
    pub library: Option<PathBuf>,
    /// The program that has it as its global allocator, in the section of those.
    pub executable: Option<PathBuf>,
    /// Its version and origin, for a person.
    pub version: String,
}

impl Peer {
    /// Variables that its documentation asks for, and nothing else: everybody runs with defaults.
    ///
    /// google/tcmalloc's caches per processor need the registration for restartable sequences that
    /// glibc has taken since 2.35; without this it falls back to something a third slower.
    pub fn environment(&self) -> &'static [(&'static str, &'static str)] {
        match self.name.as_str() {
            "tcmalloc" => &[("GLIBC_TUNABLES", "glibc.pthread.rseq=0")],
            _ => &[],
        }
    }

    /// Its version, and what it is given.
    pub fn note(&self) -> String {
        let given = self.environment().iter().map(|(name, value)| format!(", {name}={value}"));
        format!("{}{}", self.version, given.collect::<String>())
    }
}

/// An allocator that a package of the distribution brings.
struct Packaged {
    name: &'static str,
    package: &'static str,
    /// The file in the package, without its directory and what follows `.so`.
    file: &'static str,
}

const PACKAGED: &[Packaged] = &[
    Packaged {
        name: "gperftools",
        package: "libtcmalloc-minimal4",
        file: "libtcmalloc_minimal.so.",
    },
    Packaged { name: "tbbmalloc", package: "libtbbmalloc2", file: "libtbbmalloc_proxy.so." },
    Packaged { name: "mimalloc-deb", package: "libmimalloc2.0", file: "libmimalloc.so." },
    Packaged { name: "jemalloc-deb", package: "libjemalloc2", file: "libjemalloc.so." },
];

/// The packages that bring allocators and what builds the others.
pub fn packages() -> Vec<&'static str> {
    let tools = ["gcc", "g++", "make", "cmake"];
    PACKAGED.iter().map(|peer| peer.package).chain(tools).collect()
}

/// The names that can be asked for, in the order of the tables.
pub fn names() -> Vec<&'static str> {
    let built = build::RECIPES.iter().map(|recipe| recipe.name);
    [SYSTEM, OURS].into_iter().chain(built).chain(PACKAGED.iter().map(|p| p.name)).collect()
}

/// What came of asking for allocators.
#[derive(Default)]
pub struct Found {
    /// Those that take part.
    pub peers: Vec<Peer>,
    /// Those that do not, and why.
    pub absent: Vec<(String, String)>,
    /// The system's C library, for programs that have to be given it back.
    pub libc: PathBuf,
}

/// Finds or builds the allocators with these names, and those that the user brings; keeps those that
/// are seen to be in use when they are preloaded.
pub fn find(
    places: &Places,
    launcher: &Launcher,
    wanted: &[String],
    brought: &[(String, PathBuf)],
) -> Result<Found> {
    let whose = Whose::build(places)?;
    let mut found = Found { libc: whose.libc(launcher)?, ..Found::default() };
    let brought = brought.iter().map(|(name, path)| {
        let path = path.canonicalize().map_err(at(path));
        let named = |path: PathBuf| Peer {
            name: name.clone(),
            version: format!(
                "as given: {}",
                path.file_name().unwrap_or_default().to_string_lossy()
            ),
            library: Some(path),
            executable: None,
        };
        (name.clone(), path.map(named))
    });
    let listed = wanted.iter().map(|name| (name.clone(), one(places, name)));
    for (name, peer) in listed.chain(brought).collect::<Vec<_>>() {
        match peer.and_then(|peer| whose.check(launcher, &peer).map(|()| peer)) {
            Ok(peer) => found.peers.push(peer),
            Err(reason) => found.absent.push((name, reason)),
        }
    }
    Ok(found)
}

/// One allocator by its name.
fn one(places: &Places, name: &str) -> Result<Peer> {
    let (library, version) = match name {
        SYSTEM => (None, system_version()),
        OURS => (Some(ours(places)?), our_version(places)),
        _ => {
            if let Some(packaged) = PACKAGED.iter().find(|packaged| packaged.name == name) {
                packaged.find().map(|(path, version)| (Some(path), version))?
            } else if let Some(recipe) = build::RECIPES.iter().find(|r| r.name == name) {
                build::library(places, recipe).map(|(path, version)| (Some(path), version))?
            } else {
                return Err("no allocator has this name".into());
            }
        }
    };
    Ok(Peer { name: name.to_owned(), library, executable: None, version })
}

impl Packaged {
    fn find(&self) -> Result<(PathBuf, String)> {
        let hint = |_| format!("not installed (package {}; --install gets it)", self.package);
        let files = tool(Command::new("dpkg").args(["-L", self.package])).map_err(hint)?;
        let file = files.lines().map(Path::new).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(self.file))
        });
        let file = file.ok_or_else(|| format!("{} has no {}", self.package, self.file))?;
        let version = tool(Command::new("dpkg-query").args([
            "--show",
            "--showformat=${Version}",
            self.package,
        ]))?;
        Ok((file.canonicalize().map_err(at(file))?, format!("{} {version}", self.package)))
    }
}

/// Our library, built as it ships.
fn ours(places: &Places) -> Result<PathBuf> {
    tool(
        cargo()
            .current_dir(&places.root)
            .args(["build", "--release", "--quiet", "--package", "tiermalloc-preload"])
            .args(["--target-dir".as_ref(), places.target.as_os_str()]),
    )?;
    let library = places.target.join("release/libtiermalloc.so");
    library.canonicalize().map_err(at(&library))
}

fn our_version(places: &Places) -> String {
    let git = Command::new("git")
        .current_dir(&places.root)
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .output();
    match git {
        Ok(output) if output.status.success() => {
            format!("commit {}", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => "this tree".to_owned(),
    }
}

/// `glibc 2.36` and the like.
pub fn system_version() -> String {
    tool(Command::new("getconf").arg("GNU_LIBC_VERSION"))
        .map_or_else(|_| "the system's".to_owned(), |version| version.trim().to_owned())
}

/// Where an allocator stands in lists and among colours: the system's first, ours second, then those
/// that are known, then the others by a number that its name gives it.
pub fn rank(name: &str) -> usize {
    // Those that are linked into Rust go by the names of those that are preloaded.
    if name == crate::rows::global::REFERENCE {
        return 0;
    }
    let others = ["rusty_alloc", "rallocator", "mnemosyne"];
    let mut known = names().into_iter().chain(others).enumerate();
    match known.find(|(_, known)| *known == name) {
        Some((position, _)) => position,
        None => 15 + name.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % 11),
    }
}
