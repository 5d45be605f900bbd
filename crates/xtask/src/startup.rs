//! `cargo xtask startup`: what a program pays for the library before it does anything.
//!
//! Time: `true` with the library and without, in turn, and the ratio of the medians. The two are
//! interleaved because a machine's mood lasts longer than a run. Memory: an empty C program reads
//! its own `/proc/self/status`, before any `malloc` and after one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::callgrind;
use crate::shell::{Result, cmd, require, which};
use crate::table::Table;
use crate::workspace;

/// The most that `--check` lets pass: the ratio of start-up times, and KiB above the plain program.
const MOST_RATIO: f64 = 1.15;
const MOST_RESIDENT_KIB: f64 = 512.0;
/// The most that a file of 100 lines may add to the start-up.
const MOST_OF_FILE: f64 = 1.03;
const MOST_MAPPED_KIB: f64 = 4.0 * 1024.0 * 1024.0;

/// How often the memory of the empty program is read; the median counts.
const READINGS: usize = 21;

#[derive(clap::Args)]
pub struct Args {
    /// How often each side runs
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Fail above a ratio of 1.15, 0.5 MiB of resident memory, or 4 GiB of address space
    #[arg(long)]
    check: bool,
    /// Measure with a configuration file of 100 lines too; `--check` fails above 1.03 of the start-up without
    #[arg(long)]
    conf: bool,
    /// Measure another allocator too, as a preloaded library (may be given again)
    #[arg(long = "peer", value_name = "NAME=PATH.so", value_parser = workspace::parse_peer)]
    peers: Vec<(String, PathBuf)>,
}

/// What is measured. The first is the plain program, the second the library.
struct Subject {
    name: String,
    preload: Option<PathBuf>,
    /// The configuration file.
    file: Option<PathBuf>,
}

impl Subject {
    fn new(name: &str, preload: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), preload, file: None }
    }
}

/// Of [`Subject`]s: the library, and the library with a file.
const OURS: usize = 1;
const WITH_FILE: usize = 2;

pub fn run(args: &Args) -> Result {
    require(&["gcc", "true"], "apt-get install gcc coreutils")?;
    let library = workspace::release_library()?;
    let mut subjects =
        vec![Subject::new("plain", None), Subject::new("tiermalloc", Some(library.clone()))];
    if args.conf {
        let file = Some(hundred_lines()?);
        subjects.push(Subject { file, ..Subject::new("with a file", Some(library)) });
    }
    subjects.extend(args.peers.iter().map(|(name, path)| Subject::new(name, Some(path.clone()))));

    let mut above = times(&subjects, args.runs)?;
    if args.conf {
        counts(&subjects)?;
    }
    let program = compile()?;
    above.extend(memory(&subjects, &program, "an empty program", &[])?);
    above.extend(memory(&subjects, &program, "after one malloc(1)", &["malloc"])?);
    if args.check && !above.is_empty() {
        return Err(format!("above the bar: {}", above.join("; ")));
    }
    Ok(())
}

/// Start-up times; returns what is above its bar.
fn times(subjects: &[Subject], runs: u32) -> Result<Vec<String>> {
    let program = which("true").ok_or("`true` is not installed")?;
    let mut samples = vec![Vec::new(); subjects.len()];
    // The first runs bring the files into memory and do not count.
    for round in 0..runs + 5 {
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            let time = one_start(&program, subject)?;
            if round >= 5 {
                samples.push(time);
            }
        }
    }
    let headings = ["start-up of `true`, microseconds", "median", "ratio", "mean", "ratio"];
    let mut table = Table::new(headings);
    let mut above = Vec::new();
    let plain = (median(&mut samples[0].clone()), mean(&samples[0]));
    let mut ours = f64::INFINITY;
    for (column, (subject, samples)) in subjects.iter().zip(&mut samples).enumerate() {
        let (median, mean) = (median(samples), mean(samples));
        let ratio = median / plain.0;
        let micro = |seconds: f64| format!("{:.0}", seconds * 1e6);
        let [ratio_shown, of_means] = [ratio, mean / plain.1].map(|r| format!("{r:.3}"));
        table.row([subject.name.clone(), micro(median), ratio_shown, micro(mean), of_means]);
        if column == OURS {
            ours = median;
            if ratio > MOST_RATIO {
                above.push(format!("start-up {ratio:.3} of plain, and may be {MOST_RATIO}"));
            }
        }
        let of_ours = median / ours;
        if column == WITH_FILE && subject.file.is_some() && of_ours > MOST_OF_FILE {
            above.push(format!(
                "start-up with a file {of_ours:.3} of that without, and may be {MOST_OF_FILE}"
            ));
        }
    }
    println!();
    table.print();
    Ok(above)
}

/// Seconds from the call that starts the program to its end.
fn one_start(program: &Path, subject: &Subject) -> Result<f64> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("LD_PRELOAD");
    if let Some(library) = &subject.preload {
        command.env("LD_PRELOAD", library);
    }
    if let Some(file) = &subject.file {
        command.env("TIERMALLOC_CONF_FILE", file);
    }
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
    let time = began.elapsed().as_secs_f64();
    if status.success() { Ok(time) } else { Err(format!("`true` ended with {status}")) }
}

/// A configuration file of 100 lines as people write them, most of them settings.
fn hundred_lines() -> Result<PathBuf> {
    const TEN: &str = "\
# What the machine's programs have in common, and why.
pool = \"tiered\"

background = \"automatic\"     # a thread of its own
release_delay = \"500ms\"
cache_total = \"64MiB\"
cache_thread = \"4MiB\"
quarantine = 4_194_304
zero_on_free = false
[some-other-program]
";
    let path = workspace::scratch("startup")?.join("hundred.conf");
    // In all sections but the last this program is meant.
    let text = TEN.replace("[some-other-program]", "[true]").repeat(9) + TEN;
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Instructions of a start, for each of them.
fn counts(subjects: &[Subject]) -> Result {
    if let Err(reason) = callgrind::available() {
        println!("instructions are not counted: {reason}");
        return Ok(());
    }
    let program = which("true").ok_or("`true` is not installed")?;
    let mut table = Table::new(["start-up of `true`", "instructions", "above plain"]);
    let mut plain = 0;
    for (column, subject) in subjects.iter().enumerate() {
        let file = subject.file.as_deref().map(|file| ("TIERMALLOC_CONF_FILE", file));
        let count = callgrind::whole_run(&program, subject.preload.as_deref(), file)?;
        if column == 0 {
            plain = count;
        }
        let above = count.saturating_sub(plain);
        table.row([subject.name.clone(), count.to_string(), above.to_string()]);
    }
    println!();
    table.print();
    Ok(())
}

/// Memory of the empty program; returns what is above its bar.
fn memory(subjects: &[Subject], program: &Path, title: &str, args: &[&str]) -> Result<Vec<String>> {
    let headings =
        [&format!("{title}, KiB"), "address space", "above", "peak", "resident", "above"];
    let mut table = Table::new(headings);
    let mut above = Vec::new();
    let mut plain = [0.0; 3];
    for (column, subject) in subjects.iter().enumerate() {
        let [mapped, peak, resident] = readings(program, args, subject)?;
        if column == 0 {
            plain = [mapped, peak, resident];
        }
        let [more_mapped, more_resident] = [mapped - plain[0], resident - plain[2]];
        let cells = [mapped, more_mapped, peak, resident, more_resident];
        table.row([subject.name.clone()].into_iter().chain(cells.map(|kib| format!("{kib:.0}"))));
        if column == 1 && more_resident > MOST_RESIDENT_KIB {
            above.push(format!("{title}: {more_resident} KiB more resident than plain"));
        }
        if column == 1 && more_mapped > MOST_MAPPED_KIB {
            above.push(format!("{title}: {more_mapped} KiB more address space than plain"));
        }
    }
    println!();
    table.print();
    Ok(above)
}

/// Medians of `VmSize`, `VmHWM` and `VmRSS`, in KiB.
fn readings(program: &Path, args: &[&str], subject: &Subject) -> Result<[f64; 3]> {
    let mut columns = [const { Vec::new() }; 3];
    for _ in 0..READINGS {
        let command = cmd(program).quiet().args(args);
        let command = match &subject.preload {
            Some(library) => command.env("LD_PRELOAD", library),
            None => command.env_remove("LD_PRELOAD"),
        };
        let command = match &subject.file {
            Some(file) => command.env("TIERMALLOC_CONF_FILE", file),
            None => command,
        };
        let text = command.read()?;
        let mut lines = text.lines();
        for column in &mut columns {
            let figure = lines.next().and_then(|line| line.parse().ok());
            column.push(figure.ok_or_else(|| format!("not three figures: {text}"))?);
        }
    }
    Ok(columns.map(|mut column| median(&mut column)))
}

fn compile() -> Result<PathBuf> {
    let program = workspace::scratch("startup")?.join("empty");
    cmd("gcc")
        .dir(workspace::root()?)
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg("crates/xtask/c/empty.c")
        .run()?;
    Ok(program)
}

/// The middle one, or the mean of the two in the middle. Sorts its argument.
fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => 0.0,
        even if even % 2 == 0 => (samples[middle - 1] + samples[middle]) / 2.0,
        _ => samples[middle],
    }
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(mean(&[1.0, 2.0]), 1.5);
    }
}
