//! `cargo xtask startup`: what a program pays for the library before it does anything.
//!
//! Time: `true` with the library and without, in turn, and the ratio of the medians. The two are
//! interleaved because a machine's mood lasts longer than a run. Memory: an empty C program reads
//! its own `/proc/self/status`, before any `malloc` and after one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::shell::{Result, cmd, require, which};
use crate::table::Table;
use crate::workspace;

/// The most that `--check` lets pass: the ratio of start-up times, and KiB above the plain program.
const MOST_RATIO: f64 = 1.15;
const MOST_RESIDENT_KIB: f64 = 512.0;
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
    /// Measure another allocator too, as a preloaded library (may be given again)
    #[arg(long = "peer", value_name = "NAME=PATH.so", value_parser = workspace::parse_peer)]
    peers: Vec<(String, PathBuf)>,
}

/// What is measured: a name, and what is preloaded. The first is the plain program.
type Subject = (String, Option<PathBuf>);

pub fn run(args: &Args) -> Result {
    require(&["gcc", "true"], "apt-get install gcc coreutils")?;
    let library = workspace::release_library()?;
    let mut subjects: Vec<Subject> =
        vec![("plain".to_owned(), None), ("tiermalloc".to_owned(), Some(library))];
    subjects.extend(args.peers.iter().map(|(name, path)| (name.clone(), Some(path.clone()))));

    let mut above = times(&subjects, args.runs)?;
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
        for ((_, preload), samples) in subjects.iter().zip(&mut samples) {
            let time = one_start(&program, preload.as_deref())?;
            if round >= 5 {
                samples.push(time);
            }
        }
    }
    let headings = ["start-up of `true`, microseconds", "median", "ratio", "mean", "ratio"];
    let mut table = Table::new(headings);
    let mut above = Vec::new();
    let plain = (median(&mut samples[0].clone()), mean(&samples[0]));
    for (column, ((name, _), samples)) in subjects.iter().zip(&mut samples).enumerate() {
        let (median, mean) = (median(samples), mean(samples));
        let ratio = median / plain.0;
        let micro = |seconds: f64| format!("{:.0}", seconds * 1e6);
        let [ratio_shown, of_means] = [ratio, mean / plain.1].map(|r| format!("{r:.3}"));
        table.row([name.clone(), micro(median), ratio_shown, micro(mean), of_means]);
        if column == 1 && ratio > MOST_RATIO {
            above.push(format!("start-up {ratio:.3} of plain, and may be {MOST_RATIO}"));
        }
    }
    println!();
    table.print();
    Ok(above)
}

/// Seconds from the call that starts the program to its end.
fn one_start(program: &Path, preload: Option<&Path>) -> Result<f64> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("LD_PRELOAD");
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
    let time = began.elapsed().as_secs_f64();
    if status.success() { Ok(time) } else { Err(format!("`true` ended with {status}")) }
}

/// Memory of the empty program; returns what is above its bar.
fn memory(subjects: &[Subject], program: &Path, title: &str, args: &[&str]) -> Result<Vec<String>> {
    let headings =
        [&format!("{title}, KiB"), "address space", "above", "peak", "resident", "above"];
    let mut table = Table::new(headings);
    let mut above = Vec::new();
    let mut plain = [0.0; 3];
    for (column, (name, preload)) in subjects.iter().enumerate() {
        let [mapped, peak, resident] = readings(program, args, preload.as_deref())?;
        if column == 0 {
            plain = [mapped, peak, resident];
        }
        let [more_mapped, more_resident] = [mapped - plain[0], resident - plain[2]];
        let cells = [mapped, more_mapped, peak, resident, more_resident];
        table.row([name.clone()].into_iter().chain(cells.map(|kib| format!("{kib:.0}"))));
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
fn readings(program: &Path, args: &[&str], preload: Option<&Path>) -> Result<[f64; 3]> {
    let mut columns = [const { Vec::new() }; 3];
    for _ in 0..READINGS {
        let command = cmd(program).quiet().args(args);
        let command = match preload {
            Some(library) => command.env("LD_PRELOAD", library),
            None => command.env_remove("LD_PRELOAD"),
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
