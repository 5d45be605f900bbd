//! Experiments about memory over time: programs in `benches/workloads/` that look at their own
//! resident memory and print figures, `name<TAB>value<TAB>unit`.

use std::sync::mpsc;

use crate::files::{Places, Result};
use crate::launch::{Job, Launcher};
use crate::machine::available_bytes;
use crate::peers::Peer;
use crate::progress::{Key, Progress};
use crate::record::{Absent, Figure, Line, Recorder, RowNote, Section};
use crate::rows::{is_wanted, workloads};

/// One experiment.
pub struct Experiment {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    source: &'static str,
    args: fn(Length) -> Vec<String>,
    /// Whether it sleeps most of the time, so that several can run side by side.
    sleeps: bool,
    /// Whether a repetition says nothing new for the time that it takes.
    once: bool,
    /// The figure that tells who is best, with its unit, and whether less of it is better.
    pub decides: (&'static str, bool),
}

/// How long the experiments are.
#[derive(Clone, Copy)]
pub struct Length {
    /// Seconds of sleep after a burst.
    pub idle_s: u32,
    /// Seconds of producing and consuming.
    pub soak_s: u32,
    /// How often those are repeated that can be.
    pub times: u32,
}

/// All of them.
pub const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "burst",
        about: "400,000 objects of 16 to 1,016 bytes in a thread that frees them all and ends, then idle: \
                what is back with the system",
        source: "burst-idle.c",
        args: |length| vec![length.idle_s.to_string(), "0".into()],
        sleeps: true,
        once: false,
        decides: ("back, %", false),
    },
    Experiment {
        name: "burst-kept",
        about: "the same with every 1,000th object still alive",
        source: "burst-idle.c",
        args: |length| vec![length.idle_s.to_string(), "1000".into()],
        sleeps: true,
        once: false,
        decides: ("back, %", false),
    },
    Experiment {
        name: "threads",
        about: "3,200 threads in groups of 64 that come and go, 200 small objects each, after 192 that do \
                not count: how much resident memory grows",
        source: "thread-memory.c",
        args: |_| vec!["3200".into(), "loose".into()],
        sleeps: false,
        once: false,
        decides: ("growth, %", true),
    },
    Experiment {
        name: "threads-together",
        about: "the same with all of a group alive at the same time",
        source: "thread-memory.c",
        args: |_| vec!["3200".into(), "together".into()],
        sleeps: false,
        once: false,
        decides: ("growth, %", true),
    },
    Experiment {
        name: "soak",
        about: "a producer and a consumer with a bounded queue: resident memory after the first 2 s",
        source: "soak.c",
        args: |length| vec![length.soak_s.to_string()],
        sleeps: false,
        once: true,
        decides: ("growth, %", true),
    },
];

/// The notes for the head of the raw data.
pub fn notes(patterns: &[String]) -> impl Iterator<Item = RowNote> {
    EXPERIMENTS.iter().filter(|experiment| is_wanted(experiment.name, patterns)).map(|experiment| {
        RowNote {
            section: Section::Memory,
            name: experiment.name.to_owned(),
            about: experiment.about.to_owned(),
        }
    })
}

/// Runs those that are asked for on every allocator.
pub fn run(
    places: &Places,
    launcher: &Launcher,
    peers: &[Peer],
    patterns: &[String],
    length: Length,
    recorder: &mut Recorder,
) -> Result {
    let wanted: Vec<&Experiment> =
        EXPERIMENTS.iter().filter(|experiment| is_wanted(experiment.name, patterns)).collect();
    let kind = |number: usize, peer: usize| -> Key { (0, number, peer) };
    let kinds: Vec<Key> = (0..wanted.len())
        .flat_map(|number| (0..peers.len()).map(move |peer| kind(number, peer)))
        .collect();
    let mut progress = Progress::new(&kinds, length.times);
    for (number, experiment) in wanted.iter().enumerate() {
        let program = workloads::compile(places, experiment.source)?;
        let job = |peer: &Peer| Job {
            program: program.clone(),
            args: (experiment.args)(length),
            preload: peer.library.clone(),
            environment: peer.environment(),
            dir: launcher.scratch().to_owned(),
            limit_s: 120 + length.idle_s + length.soak_s,
        };
        for time in 0..length.times {
            if experiment.once && time > 0 {
                (0..peers.len()).for_each(|peer| progress.drop_kind(kind(number, peer)));
                continue;
            }
            progress.begin(experiment.name);
            let side_by_side = if experiment.sleeps { beside(peers.len()) } else { 1 };
            for (first, some) in (0..).step_by(side_by_side).zip(peers.chunks(side_by_side)) {
                for (at, result) in together(launcher, some.iter().map(job)).into_iter().enumerate()
                {
                    let peer = &some[at];
                    let (seconds, lines) = lines_of(experiment, peer, result);
                    // Those that ran side by side took the time of one.
                    progress.end(kind(number, first + at), seconds / some.len() as f64);
                    lines.into_iter().try_for_each(|line| recorder.write(line))?;
                }
            }
        }
    }
    progress.finish();
    Ok(())
}

/// How many bursts of some 300 MiB this machine bears at a time.
fn beside(peers: usize) -> usize {
    let room = available_bytes().unwrap_or(0) / (1 << 30);
    peers.min(room as usize).max(1)
}

/// Runs jobs at the same time: seconds and output of each, in their order.
fn together(launcher: &Launcher, jobs: impl Iterator<Item = Job>) -> Vec<Result<(f64, String)>> {
    let jobs: Vec<Job> = jobs.collect();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for (number, job) in jobs.iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                let result = launcher.run(job).map(|finished| {
                    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
                    (finished.usage.wall_s, text)
                });
                // The receiver outlives this thread.
                let _ = sender.send((number, result));
            });
        }
    });
    drop(sender);
    let mut results: Vec<_> = receiver.into_iter().collect();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What a run gave, as lines of raw data.
fn lines_of(
    experiment: &Experiment,
    peer: &Peer,
    result: Result<(f64, String)>,
) -> (f64, Vec<Line>) {
    match result.and_then(|(seconds, text)| Ok((seconds, parse(&text)?))) {
        Ok((seconds, figures)) => {
            let line = |(name, value, unit): (String, f64, String)| {
                let (row, peer) = (experiment.name.to_owned(), peer.name.clone());
                Line::Figure(Figure { row, peer, name, value, unit })
            };
            (seconds, figures.into_iter().map(line).collect())
        }
        Err(reason) => {
            let absent = Absent {
                section: Section::Memory,
                row: experiment.name.to_owned(),
                peer: peer.name.clone(),
                reason,
            };
            (0.0, vec![Line::Absent(absent)])
        }
    }
}

/// Lines of `name<TAB>value<TAB>unit`.
pub fn parse(text: &str) -> Result<Vec<(String, f64, String)>> {
    let figure = |line: &str| {
        let mut fields = line.split('\t');
        let (name, value, unit) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), value.parse().ok()?, unit.to_owned()))
    };
    let figures: Option<Vec<_>> = text.lines().map(figure).collect();
    figures.filter(|figures| !figures.is_empty()).ok_or_else(|| format!("not figures: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_a_name_a_value_and_a_unit() {
        let figures = parse("back\t97.5\t%\nidle CPU\t0.01\t%\n").unwrap();
        assert_eq!(figures[0], ("back".into(), 97.5, "%".into()));
        assert_eq!(figures.len(), 2);
        assert!(parse("").is_err() && parse("back 97.5\n").is_err());
    }

    #[test]
    fn jobs_side_by_side_keep_their_order() {
        let launcher = Launcher::build(&Places::find().unwrap()).unwrap();
        let job = |seconds: &str, text: &str| Job {
            program: "sh".into(),
            args: vec!["-c".into(), format!("sleep {seconds}; echo {text}")],
            preload: None,
            environment: &[],
            dir: std::env::temp_dir(),
            limit_s: 5,
        };
        let jobs = [job("0.2", "first"), job("0", "second")];
        let texts: Vec<String> =
            together(&launcher, jobs.into_iter()).into_iter().map(|r| r.unwrap().1).collect();
        assert_eq!(texts, ["first\n", "second\n"]);
    }
}
