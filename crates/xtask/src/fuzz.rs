//! `cargo xtask fuzz-smoke`: every fuzz target of `fuzz/` for a while, from the corpus that is committed.
//!
//! The targets are built by cargo-fuzz with a nightly compiler, without a sanitizer: what they look for
//! are broken promises of the allocator, which knows more about its memory than a sanitizer does. The
//! library that `c_surface` loads is built with the same counters. What a run finds that is new goes to the
//! target directory, and not into the committed corpus.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::shell::{Cmd, Result, cmd, last_lines, require, which};
use crate::table::Table;
use crate::{packages, workspace};

/// What cargo-fuzz has rustc do, for a library that it does not build itself.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds after which one input hangs.
const HANGS: u32 = 20;

#[derive(clap::Args)]
pub struct Args {
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Install cargo-fuzz, a nightly compiler and g++ if they are missing
    #[arg(long)]
    install: bool,
    /// Only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub fn run(args: &Args) -> Result {
    let root = workspace::root()?;
    let fuzz = root.join("fuzz");
    let known = targets(&fuzz)?;
    if let Some(unknown) = args.targets.iter().find(|name| !known.contains(name)) {
        return Err(format!("no fuzz target {unknown}; there are {}", known.join(", ")));
    }
    let chosen = known.iter().filter(|t| args.targets.is_empty() || args.targets.contains(t));
    let chosen: Vec<&String> = chosen.collect();
    need_tools(args.install)?;

    let (build, scratch) = (workspace::target_dir()?.join("fuzz"), workspace::scratch("fuzz")?);
    nightly()
        .dir(&root)
        .args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir", "fuzz", "--target-dir"])
        .arg(&build)
        .run()?;
    let host = host()?;
    let library = match chosen.iter().any(|name| *name == "c_surface") {
        true => Some(counted_library(&root, &build, &host)?),
        false => None,
    };

    let mut table = Table::new(["target", "runs", "edges", "corpus", "result"]);
    let mut failed = Vec::new();
    for name in chosen {
        println!("--- {name}: {} s", args.seconds);
        let program = build.join(&host).join("release").join(name);
        let (grown, found) = (scratch.join("corpus").join(name), scratch.join("found").join(name));
        workspace::create_dir(&grown)?;
        workspace::create_dir(&found)?;
        let log = scratch.join(format!("{name}.log"));
        let mut target = cmd(&program)
            .args([format!("-max_total_time={}", args.seconds), format!("-timeout={HANGS}")])
            .arg("-print_final_stats=1")
            // The counters keep the depth of the stack in a thread-local variable, which in a shared
            // library is reached by a call that the allocator's own thread cannot make.
            .env("TIERMALLOC_CONF", "background=false")
            .arg(format!("-artifact_prefix={}/", found.display()))
            // What is new is written to the first of them.
            .arg(&grown);
        let corpus = fuzz.join("corpus").join(name);
        if corpus.is_dir() {
            target = target.arg(corpus);
        }
        if let Some(library) = &library {
            target = target.env("TIERMALLOC_LIB", library);
        }
        let ok = run_logged(target, &log)?;
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        let said = Said::read(&text);
        let result = if ok { "ok" } else { "FOUND SOMETHING" };
        table.row([name.as_str(), &said.runs, &said.edges, &said.corpus, result]);
        if !ok {
            println!("{}\n(the input lies in {})", last_lines(&text, 30), found.display());
            failed.push(name.as_str());
        }
    }
    println!();
    table.print();
    if failed.is_empty() { Ok(()) } else { Err(format!("findings in {}", failed.join(", "))) }
}

/// The targets, as the manifest lists them.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let manifest = fuzz.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    let mut lines = text.lines();
    let mut names = Vec::new();
    while lines.by_ref().any(|line| line == "[[bin]]") {
        let name = lines.next().and_then(|line| line.strip_prefix("name = \""));
        names.extend(name.and_then(|name| name.strip_suffix('"')).map(str::to_owned));
    }
    Ok(names)
}

/// The nightly cargo.
pub(crate) fn nightly() -> Cmd {
    cmd("rustup").args(["run", "nightly", "cargo"])
}

fn need_tools(install: bool) -> Result {
    // libFuzzer is in C++.
    if install && which("g++").is_none() {
        packages::install(&["g++"])?;
    }
    require(&["g++"], "it is in Debian's package of that name; --install gets it")?;
    need_nightly(install, &[])?;
    if which("cargo-fuzz").is_none() {
        if !install {
            return Err("no cargo-fuzz: `cargo install cargo-fuzz`, or --install".to_owned());
        }
        cmd("cargo").args(["install", "cargo-fuzz", "--locked"]).run()?;
    }
    Ok(())
}

/// Sees that there is a nightly compiler with these components.
pub(crate) fn need_nightly(install: bool, components: &[&str]) -> Result {
    if which("rustup").is_none() {
        return Err("rustup is not installed; this needs a nightly compiler".to_owned());
    }
    if nightly().quiet().arg("--version").read().is_err() {
        if !install {
            return Err(
                "no nightly compiler: `rustup toolchain install nightly`, or --install".to_owned()
            );
        }
        cmd("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]).run()?;
    }
    let list = ["component", "list", "--toolchain", "nightly", "--installed"];
    let there = cmd("rustup").quiet().args(list).read()?;
    for component in components {
        if !there.lines().any(|line| line.starts_with(component)) {
            if !install {
                return Err(format!(
                    "`rustup component add --toolchain nightly {component}`, or --install"
                ));
            }
            cmd("rustup").args(["component", "add", "--toolchain", "nightly", component]).run()?;
        }
    }
    Ok(())
}

/// The triple that the nightly compiler builds for.
pub(crate) fn host() -> Result<String> {
    let text = cmd("rustup").quiet().args(["run", "nightly", "rustc", "-vV"]).read()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc names no host".to_owned())
}

/// Builds `libtiermalloc.so` so that the fuzzer sees where it goes.
fn counted_library(root: &Path, build: &Path, host: &str) -> Result<PathBuf> {
    nightly()
        .dir(root)
        .env("RUSTFLAGS", COUNTERS)
        .args(["build", "--release", "--package", "tiermalloc-preload", "--target", host])
        .arg("--target-dir")
        .arg(build.join("counted"))
        .run()?;
    Ok(build.join("counted").join(host).join("release").join("libtiermalloc.so"))
}

/// Runs a target with its words in a file; whether it found nothing.
fn run_logged(target: Cmd, log: &Path) -> Result<bool> {
    let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let status = target
        .start()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|e| format!("cannot run the target: {e}"))?;
    Ok(status.success())
}

/// What libFuzzer says about a run.
struct Said {
    runs: String,
    edges: String,
    corpus: String,
}

impl Said {
    fn read(log: &str) -> Self {
        let word = |line: &str, key: &str| {
            let rest = line.split_once(key)?.1.trim_start();
            rest.split([' ', '/']).next().map(str::to_owned)
        };
        let last = |key: &str| log.lines().rev().find_map(|line| word(line, key));
        let known = |word: Option<String>| word.unwrap_or_else(|| "?".to_owned());
        Self {
            runs: known(last("stat::number_of_executed_units:")),
            edges: known(last(" cov: ")),
            corpus: known(last(" corp: ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let log = "#1\tINITED cov: 2 ft: 3 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #421\tNEW    cov: 293 ft: 1504 corp: 501/49Kb lim: 675 exec/s: 11704\n\
                   stat::number_of_executed_units: 421360\n";
        let said = Said::read(log);
        assert_eq!((&*said.runs, &*said.edges, &*said.corpus), ("421360", "293", "501"));
        assert_eq!(Said::read("").runs, "?");
    }

    #[test]
    fn the_targets_are_those_of_the_manifest() {
        let names = targets(&workspace::root().unwrap().join("fuzz")).unwrap();
        assert!(names.iter().any(|name| name == "page_heap") && names.len() >= 6, "{names:?}");
    }
}
