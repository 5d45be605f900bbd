//! Building with counters, running, and asking LLVM for the counts.
//!
//! Counters are kept in a mapped file while the tests run (`%c`), so that what a child of a test has
//! reached counts even if it ends by abort, by a signal or by `_exit`; and they are counted up
//! atomically, so that threads lose nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Run;
use super::holes::Source;
use crate::shell::{Cmd, Result, cargo, cmd, which};
use crate::workspace;

const FLAGS: &str = "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation \
                     -Cllvm-args=-instrprof-atomic-counter-update-all";

/// LLVM's own programs, of the version that the compiler has.
pub(super) struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Finds them in the toolchain; adds the component that they are in if they are not there.
    pub(super) fn find() -> Result<Self> {
        let libdir = cmd("rustc").quiet().args(["--print", "target-libdir"]).read()?;
        let bin = Path::new(libdir.trim()).with_file_name("bin");
        let tools = Self { profdata: bin.join("llvm-profdata"), cov: bin.join("llvm-cov") };
        if !tools.are_there() && which("rustup").is_some() {
            cmd("rustup").args(["component", "add", "llvm-tools"]).run()?;
        }
        if tools.are_there() {
            return Ok(tools);
        }
        Err("the toolchain has no llvm-cov; `rustup component add llvm-tools` adds it".to_owned())
    }

    fn are_there(&self) -> bool {
        self.profdata.is_file() && self.cov.is_file()
    }
}

/// The counts of one tier.
pub(super) struct Report {
    tier: String,
    profile: PathBuf,
    objects: Vec<PathBuf>,
    counts: String,
}

/// Runs a tier's tests in each way.
pub(super) fn tier(tools: &Tools, name: &str, runs: &[Run]) -> Result<Report> {
    let raw = profiles()?.join(name);
    if raw.exists() {
        fs::remove_dir_all(&raw).map_err(|e| format!("{}: {e}", raw.display()))?;
    }
    workspace::create_dir(&raw)?;
    let mut objects = Vec::new();
    for run in runs {
        if name == "preload" {
            objects.push(test_preload(run, &raw)?);
        } else {
            objects.extend(test(name, run, &raw)?);
        }
    }
    objects.sort();
    objects.dedup();

    let profile = raw.with_extension("profdata");
    let mut merge = cmd(&tools.profdata).quiet().args(["merge", "--sparse", "--output"]);
    merge = merge.arg(&profile);
    for file in fs::read_dir(&raw).map_err(|e| format!("{}: {e}", raw.display()))? {
        let file = file.map_err(|e| e.to_string())?;
        // A program without counters leaves an empty file.
        if file.metadata().is_ok_and(|data| data.len() > 0) {
            merge = merge.arg(file.path());
        }
    }
    merge.run()?;
    let mut report = Report { tier: name.to_owned(), profile, objects, counts: String::new() };
    report.counts = report.ask(tools, "export")?.arg("--format=lcov").read()?;
    Ok(report)
}

/// Runs the tests of one crate and returns the programs that were run.
fn test(name: &str, run: &Run, raw: &Path) -> Result<Vec<PathBuf>> {
    let test = || -> Result<Cmd> {
        let mut command = build("test")?.args(["--package", &workspace::package_name(name)]);
        for target in targets(name)? {
            command = command.arg(target);
        }
        if !run.features.is_empty() {
            command = command.args(["--features", run.features]);
        }
        Ok(command.env("TIERMALLOC_CONF", run.conf))
    };
    let messages = messages(test()?.arg("--no-run").quiet())?;
    test()?.arg("--quiet").env("LLVM_PROFILE_FILE", raw.join("%m%c.profraw")).run()?;
    let programs = messages.lines().filter_map(|line| field(line, "executable"));
    Ok(programs.map(PathBuf::from).collect())
}

/// Runs the tests of the preloaded library on one with counters and returns that one. The tests
/// themselves have none.
fn test_preload(run: &Run, raw: &Path) -> Result<PathBuf> {
    let package = ["--package", "tiermalloc-preload"];
    let messages = messages(build("build")?.args(package))?;
    let library = messages
        .split('"')
        .find(|text| text.ends_with("/libtiermalloc.so"))
        .ok_or("cargo named no libtiermalloc.so")?;
    cargo()
        .dir(workspace::root()?)
        .env("TIERMALLOC_LIB", library)
        .env("TIERMALLOC_TEST_CONF", run.conf)
        .env("LLVM_PROFILE_FILE", raw.join("%m%c.profraw"))
        .args(["test", "--quiet"])
        .args(package)
        .run()?;
    Ok(PathBuf::from(library))
}

/// cargo, told to count, in a target directory of its own.
fn build(what: &str) -> Result<Cmd> {
    let flags = match std::env::var("RUSTFLAGS") {
        Ok(theirs) if !theirs.is_empty() => format!("{theirs} {FLAGS}"),
        _ => FLAGS.to_owned(),
    };
    Ok(cargo()
        .dir(workspace::root()?)
        .env("RUSTFLAGS", flags)
        // What build scripts reach is nobody's business.
        .env("LLVM_PROFILE_FILE", profiles()?.join("build").join("%m.profraw"))
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .args([what, "--target-dir"])
        .arg(workspace::target_dir()?.join("coverage")))
}

fn profiles() -> Result<PathBuf> {
    workspace::scratch("coverage")
}

/// What cargo says about what it has built; what it says to people is passed on.
fn messages(command: Cmd) -> Result<String> {
    let mut command = command.arg("--message-format=json-render-diagnostics").start();
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The text of a field of one of cargo's messages.
fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(&format!("\"{name}\":\""))?;
    rest.split('"').next()
}

/// The test programs of a crate, as arguments for cargo: all but the models, which are empty in an
/// ordinary build, and the crate itself if there are tests in it.
fn targets(name: &str) -> Result<Vec<String>> {
    let dir = workspace::root()?.join("crates").join(name);
    let mut targets = Vec::new();
    if sources_below(&dir.join("src"))?.iter().any(|(_, text)| text.contains("#[test]")) {
        targets.push("--lib".to_owned());
    }
    let tests = dir.join("tests");
    let entries = fs::read_dir(&tests).map_err(|e| format!("{}: {e}", tests.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|stem| stem != "loom")
        .collect();
    names.sort();
    targets.extend(names.into_iter().map(|name| format!("--test={name}")));
    Ok(targets)
}

/// The Rust sources below a directory, each with its text.
fn sources_below(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            found.extend(sources_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            found.push((path, text));
        }
    }
    Ok(found)
}

impl Report {
    /// The tier's files, with the count of each line.
    pub(super) fn sources(&self) -> Result<Vec<Source>> {
        let counts = parse(&self.counts);
        let root = workspace::root()?;
        let mut sources = Vec::new();
        for (path, text) in sources_below(&self.source_dir()?)? {
            let Some(counts) = counts.get(path.to_string_lossy().as_ref()) else { continue };
            let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            sources.push(Source::new(name, &text, counts));
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    /// Writes the sources with a count beside each line.
    pub(super) fn write_html(&self, tools: &Tools, dir: &Path) -> Result {
        workspace::create_dir(dir)?;
        self.ask(tools, "show")?.args(["--format=html", "--output-dir"]).arg(dir).read()?;
        println!("{}", dir.join("index.html").display());
        Ok(())
    }

    fn source_dir(&self) -> Result<PathBuf> {
        Ok(workspace::root()?.join("crates").join(&self.tier).join("src"))
    }

    fn ask(&self, tools: &Tools, what: &str) -> Result<Cmd> {
        let mut command = cmd(&tools.cov).quiet().args([what, "--instr-profile"]);
        command = command.arg(&self.profile);
        for object in &self.objects {
            command = command.arg("--object").arg(object);
        }
        Ok(command.arg("--sources").arg(self.source_dir()?))
    }
}

/// The lines of each file and how often they were reached, from the format of lcov: `SF:FILE`, then
/// `DA:LINE,COUNT` for every line with code.
fn parse(text: &str) -> BTreeMap<&str, BTreeMap<usize, u64>> {
    let mut files: BTreeMap<&str, BTreeMap<usize, u64>> = BTreeMap::new();
    let mut file = "";
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path;
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(two) {
            *files.entry(file).or_default().entry(number).or_default() += count;
        }
    }
    files
}

fn two(text: &str) -> Option<(usize, u64)> {
    let mut parts = text.split(',');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_read_from_what_lcov_writes() {
        let files =
            super::parse("SF:/a.rs\nFN:1,x\nDA:1,0\nDA:3,17\nend_of_record\nSF:/b.rs\nDA:2,1");
        assert_eq!(files["/a.rs"].iter().collect::<Vec<_>>(), [(&1, &0), (&3, &17)]);
        assert_eq!(files["/b.rs"].len(), 1);
    }

    #[test]
    fn a_field_of_a_message_is_found() {
        let message = r#"{"reason":"x","executable":"/t/deps/a-1","fresh":true}"#;
        assert_eq!(super::field(message, "executable"), Some("/t/deps/a-1"));
        assert_eq!(super::field(r#"{"executable":null}"#, "executable"), None);
    }
}
