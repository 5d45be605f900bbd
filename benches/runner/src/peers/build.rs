//! Peers that no distribution has in their newest version, built from the sources that crates carry.
//!
//! `benches/peers/Cargo.toml` names the crates and its lock file their versions; cargo fetches them,
//! and nothing of them is built by cargo. From the C and C++ inside, each recipe makes one shared
//! library that replaces `malloc`, with the options that its project recommends for that. What was
//! built once is kept under the target directory, by version; so is the reason of what could not be
//! built, until `--build-peers` asks again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::build_tcmalloc;
use crate::files::{Places, Result, at, cargo, create_dir, last_lines, tool};

/// How one library is made.
pub struct Recipe {
    /// The name of the allocator.
    pub name: &'static str,
    /// The crate that carries its sources.
    package: &'static str,
    /// Reads the version of the sources.
    version: fn(&Source) -> Option<String>,
    /// Makes the library.
    build: fn(&Source) -> Result,
}

/// Where the sources are, and where the library is to be.
pub struct Source {
    /// The directory of the crate.
    pub dir: PathBuf,
    /// The version of the crate.
    pub crate_version: String,
    /// A directory for what comes between.
    pub work: PathBuf,
    /// The library that is to be made.
    pub library: PathBuf,
}

/// The recipes, in the order of the tables.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "mimalloc3",
        package: "libmimalloc-sys",
        version: |source| mimalloc_version(source, "v3"),
        build: |source| mimalloc(source, "v3"),
    },
    Recipe {
        name: "mimalloc2",
        package: "libmimalloc-sys",
        version: |source| mimalloc_version(source, "v2"),
        build: |source| mimalloc(source, "v2"),
    },
    Recipe { name: "snmalloc", package: "snmalloc-sys", version: |_| None, build: snmalloc },
    Recipe {
        name: "tcmalloc",
        package: "libtcmalloc-sys",
        version: |_| Some("google/tcmalloc".into()),
        build: build_tcmalloc::build,
    },
    Recipe {
        name: "jemalloc",
        package: "tikv-jemalloc-sys",
        version: jemalloc_own_version,
        build: jemalloc,
    },
    Recipe {
        name: "rpmalloc",
        package: "rpmalloc-sys",
        version: rpmalloc_version,
        build: rpmalloc,
    },
];

/// The library of a recipe and its version, built if it is not there.
pub fn library(places: &Places, recipe: &Recipe) -> Result<(PathBuf, String)> {
    let source = fetch(places, recipe)?;
    let failed = source.library.with_extension("failed");
    if !source.library.exists() {
        if let Ok(reason) = fs::read_to_string(&failed) {
            return Err(format!("{} (--build-peers tries again)", reason.trim()));
        }
        eprintln!("building {} from {} {}", recipe.name, recipe.package, source.crate_version);
        if let Err(reason) = make(recipe, &source) {
            let reason =
                format!("could not be built: {}", last_lines(&reason, 3).replace('\n', " / "));
            fs::write(&failed, &reason).map_err(at(&failed))?;
            return Err(reason);
        }
    }
    let library = source.library.canonicalize().map_err(at(&source.library))?;
    let own = (recipe.version)(&source).map(|v| format!("{v}, ")).unwrap_or_default();
    // Without what some crates append, which is the commit of what they carry.
    let version = source.crate_version.split('+').next().unwrap_or_default();
    Ok((library, format!("{own}{} {version}", recipe.package)))
}

/// Throws away what was built of a recipe and why it could not be, so that it is built again.
pub fn forget(places: &Places, recipe: &Recipe) -> Result {
    let source = fetch(places, recipe)?;
    for file in [&source.library, &source.library.with_extension("failed")] {
        if file.exists() {
            fs::remove_file(file).map_err(at(file))?;
        }
    }
    Ok(())
}

fn make(recipe: &Recipe, source: &Source) -> Result {
    if source.work.exists() {
        fs::remove_dir_all(&source.work).map_err(at(&source.work))?;
    }
    create_dir(&source.work)?;
    (recipe.build)(source)?;
    fs::remove_dir_all(&source.work).map_err(at(&source.work))
}

/// Has cargo fetch the crates, and finds the one of this recipe.
fn fetch(places: &Places, recipe: &Recipe) -> Result<Source> {
    let manifest = places.benches().join("peers/Cargo.toml");
    let metadata = tool(
        cargo()
            .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
            .arg(&manifest),
    )?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let (dir, crate_version) = packages
        .filter(|package| package["name"] == recipe.package)
        .find_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((manifest.parent()?.to_owned(), package["version"].as_str()?.to_owned()))
        })
        .ok_or_else(|| format!("cargo does not know the crate {}", recipe.package))?;
    let peers = places.scratch("peers")?;
    Ok(Source {
        dir,
        work: peers.join(format!("{}.work", recipe.name)),
        library: peers.join(format!("lib{}-{crate_version}.so", recipe.name)),
        crate_version,
    })
}

/// mimalloc is one C file that includes the others.
fn mimalloc(source: &Source, generation: &str) -> Result {
    let dir = source.dir.join("c_src/mimalloc").join(generation);
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-fno-builtin-malloc"])
        .args(["-ftls-model=initial-exec", "-DNDEBUG", "-DMI_DEBUG=0", "-DMI_BUILD_RELEASE"])
        .args(["-DMI_SHARED_LIB", "-DMI_SHARED_LIB_EXPORT", "-DMI_MALLOC_OVERRIDE", "-I"])
        .arg(dir.join("include"))
        .arg("-I")
        .arg(dir.join("src"))
        .arg("-o")
        .arg(&source.library)
        .arg(dir.join("src/static.c"));
    tool(&mut cc).map(drop)
}

/// `MI_MALLOC_VERSION 30203` is 3.2.3, and since then it has four digits for the last two.
fn mimalloc_version(source: &Source, generation: &str) -> Option<String> {
    let header = source.dir.join("c_src/mimalloc").join(generation).join("include/mimalloc.h");
    let text = fs::read_to_string(header).ok()?;
    let line = text.lines().find(|line| line.contains("#define MI_MALLOC_VERSION"))?;
    let number = line.split_whitespace().nth(2)?;
    Some(match number.len() {
        3 => format!("{}.{}.{}", &number[..1], &number[1..2], &number[2..]),
        5 => {
            let two = |digits: &str| digits.parse::<u32>().unwrap_or(0);
            format!("{}.{}.{}", &number[..1], two(&number[1..3]), two(&number[3..]))
        }
        _ => number.to_owned(),
    })
}

/// snmalloc's own cmake, for the library that it makes to be preloaded.
fn snmalloc(source: &Source) -> Result {
    let work = source.work.join("snmalloc");
    tool(
        Command::new("cmake")
            .arg("-S")
            .arg(source.dir.join("upstream"))
            .arg("-B")
            .arg(&work)
            .args(["-DCMAKE_BUILD_TYPE=Release", "-DSNMALLOC_BUILD_TESTING=OFF"]),
    )?;
    tool(Command::new("cmake").arg("--build").arg(&work).args(["--target", "snmallocshim"]))?;
    let built = work.join("libsnmallocshim.so");
    fs::copy(&built, &source.library).map(drop).map_err(at(&built))
}

/// jemalloc's own configure and make, in a copy of the sources.
fn jemalloc(source: &Source) -> Result {
    let work = source.work.join("jemalloc");
    tool(Command::new("cp").arg("-r").arg(source.dir.join("jemalloc")).arg(&work))?;
    // The crate carries the generated script beside the sources.
    tool(Command::new("cp").arg(source.dir.join("configure/configure")).arg(&work))?;
    // Without a repository around it, it takes its version from what it is told.
    let (_, version) =
        source.crate_version.split_once('+').ok_or("a version without jemalloc's")?;
    tool(
        Command::new("sh")
            .current_dir(&work)
            .args(["configure", "--disable-cxx", "--with-jemalloc-prefix="])
            .arg(format!("--with-version={}", jemalloc_version(version))),
    )?;
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
    tool(Command::new("make").current_dir(&work).args([&jobs, "build_lib_shared"]))?;
    let built = work.join("lib/libjemalloc.so.2");
    fs::copy(&built, &source.library).map(drop).map_err(at(&built))
}

/// What stands behind the `+` of the crate's version, without the commit.
fn jemalloc_own_version(source: &Source) -> Option<String> {
    let (_, version) = source.crate_version.split_once('+')?;
    version.split('-').next().map(str::to_owned)
}

/// `5.3.1-0-g81034ce...`, which configure wants whole.
fn jemalloc_version(version: &str) -> String {
    let parts = version.matches('-').count();
    if parts == 2 { version.to_owned() } else { format!("{version}-0-g0") }
}

/// rpmalloc is one C file that includes the overrides.
fn rpmalloc(source: &Source) -> Result {
    let dir = source.dir.join("rpmalloc/rpmalloc");
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-fPIC", "-shared", "-pthread", "-fno-builtin-malloc", "-fvisibility=hidden"])
        .args(["-ftls-model=initial-exec", "-DNDEBUG", "-D_GNU_SOURCE", "-DENABLE_PRELOAD=1"])
        .args(["-DENABLE_OVERRIDE=1", "-o"])
        .arg(&source.library)
        .arg(dir.join("rpmalloc.c"));
    tool(&mut cc).map(drop)
}

/// The first line of its change log.
fn rpmalloc_version(source: &Source) -> Option<String> {
    let log = fs::read_to_string(source.dir.join("rpmalloc/CHANGELOG")).ok()?;
    log.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_peers_share_a_name() {
        let names = super::super::names();
        for (position, name) in names.iter().enumerate() {
            assert!(!names[..position].contains(name), "{name}");
        }
    }

    #[test]
    fn configure_gets_a_version_of_three_parts() {
        assert_eq!(jemalloc_version("5.3.1-0-g8103"), "5.3.1-0-g8103");
        assert_eq!(jemalloc_version("5.3.1"), "5.3.1-0-g0");
    }
}
