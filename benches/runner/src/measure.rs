//! The series: every row on every allocator, round after round.
//!
//! In a round each row runs once on each allocator, the allocators in an order drawn for that row and
//! round. The first round does not count: it brings files into memory, checks that each program is
//! really bound to the allocator it is to measure, and tells how long things take. A run that fails
//! is told and takes its cell out of the series; so does output that differs from that of the other
//! allocators, for then the same work was not done.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use crate::files::{Places, Result};
use crate::launch::{Finished, Job, Launcher};
use crate::order::Random;
use crate::peers::{Bindings, Peer};
use crate::progress::{Key, Progress};
use crate::record::{Absent, Line, Recorder, Run};
use crate::rows::{Row, Table, Work, programs};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Share of its full work that each workload does.
    pub scale: f64,
    /// The same in the round that does not count.
    pub warm_scale: f64,
    /// Rounds that count.
    pub rounds: u32,
    /// Seed of the order.
    pub seed: u64,
}

/// Runs the tables and records every run.
pub fn run(
    places: &Places,
    launcher: &Launcher,
    tables: &[Table],
    effort: Effort,
    recorder: &mut Recorder,
) -> Result {
    let mut series = Series {
        launcher,
        bindings: places.scratch("bindings")?.join(std::process::id().to_string()),
        scratch: places.scratch("work")?,
        out: HashSet::new(),
        outputs: HashMap::new(),
        random: Random::new(effort.seed),
        progress: Progress::new(&kinds(tables), effort.rounds + 1),
        recorder,
    };
    for round in 0..=effort.rounds {
        series.prepare(tables, effort, round)?;
        series.round(tables, effort, round)?;
        if round == 0 {
            series.progress.rescale(effort.scale / effort.warm_scale);
        }
    }
    series.progress.finish();
    clean_up(tables);
    Ok(())
}

/// Removes what scripts have made. What cannot be removed is in nobody's way.
fn clean_up(tables: &[Table]) {
    for row in tables.iter().flat_map(|table| &table.rows) {
        if let Work::Script { dir, .. } = &row.work {
            let _ = fs::remove_dir_all(dir);
            // The directory of the series, once it is empty.
            let _ = dir.parent().map(fs::remove_dir);
        }
    }
}

/// Everything that is run once a round.
fn kinds(tables: &[Table]) -> Vec<Key> {
    let mut kinds = Vec::new();
    for (table, what) in tables.iter().enumerate() {
        for row in 0..what.rows.len() {
            kinds.extend((0..what.peers.len()).map(|peer| (table, row, peer)));
        }
    }
    kinds
}

struct Series<'a> {
    launcher: &'a Launcher,
    bindings: PathBuf,
    scratch: PathBuf,
    /// Cells that are out of the series.
    out: HashSet<Key>,
    /// What the first allocator printed, by table and row; whether it was in the first round.
    outputs: HashMap<(usize, usize, bool), Vec<u8>>,
    random: Random,
    progress: Progress,
    recorder: &'a mut Recorder,
}

impl Series<'_> {
    /// Lets scripts make their input, once for the first round and once for the others.
    fn prepare(&mut self, tables: &[Table], effort: Effort, round: u32) -> Result {
        if round > 1 {
            return Ok(());
        }
        let scale = if round == 0 { effort.warm_scale } else { effort.scale };
        for (table, what) in tables.iter().enumerate() {
            for (number, row) in what.rows.iter().enumerate() {
                let Work::Script { script, dir, .. } = &row.work else { continue };
                if let Err(reason) = programs::prepare(script, dir, scale) {
                    for peer in 0..what.peers.len() {
                        self.take_out((table, number, peer), row, &what.peers[peer], &reason)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn round(&mut self, tables: &[Table], effort: Effort, round: u32) -> Result {
        for (table, what) in tables.iter().enumerate() {
            for (number, row) in what.rows.iter().enumerate() {
                for peer in self.random.permutation(what.peers.len()) {
                    let key = (table, number, peer);
                    if !self.out.contains(&key) {
                        self.cell(key, row, &what.peers[peer], effort, round)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One run.
    fn cell(&mut self, key: Key, row: &Row, peer: &Peer, effort: Effort, round: u32) -> Result {
        self.progress.begin(&format!("{}: {}", row.name, peer.name));
        let warm = round == 0;
        let job = row.job(peer, if warm { effort.warm_scale } else { effort.scale }, &self.scratch);
        let result = if warm { self.first(&job, peer) } else { self.launcher.run(&job) };
        let finished = match result.and_then(|finished| self.compare(key, warm, finished)) {
            Ok(finished) => finished,
            Err(reason) => return self.take_out(key, row, peer, &reason),
        };
        let usage = finished.usage;
        self.progress.end(key, usage.wall_s);
        if warm {
            return Ok(());
        }
        self.recorder.write(Line::Run(Run {
            section: row.section,
            row: row.name.clone(),
            peer: peer.name.clone(),
            round,
            wall_s: usage.wall_s,
            user_s: usage.user_s,
            system_s: usage.system_s,
            peak_kib: usage.peak_kib,
            minor_faults: usage.minor_faults,
            preempted: usage.preempted,
        }))
    }

    /// A run of the first round, with a look at what the dynamic linker does.
    fn first(&self, job: &Job, peer: &Peer) -> Result<Finished> {
        // What is linked in is not the dynamic linker's business.
        if peer.executable.is_some() {
            return self.launcher.run(job);
        }
        let bindings = Bindings::at(self.bindings.clone())?;
        let variables = bindings.variables();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let finished = self.launcher.run_with(job, &variables)?;
        bindings.check(peer)?;
        Ok(finished)
    }

    /// An error if this row printed something else before.
    fn compare(&mut self, key: Key, warm: bool, finished: Finished) -> Result<Finished> {
        let first = self.outputs.entry((key.0, key.1, warm));
        let first = first.or_insert_with(|| finished.stdout.clone());
        if *first == finished.stdout {
            return Ok(finished);
        }
        let line = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            text.lines().last().unwrap_or("nothing").to_owned()
        };
        let (theirs, ours) = (line(first), line(&finished.stdout));
        Err(format!("printed something else than the others: {ours:?} and not {theirs:?}"))
    }

    fn take_out(&mut self, key: Key, row: &Row, peer: &Peer, reason: &str) -> Result {
        self.out.insert(key);
        self.progress.drop_kind(key);
        self.progress.say(&format!("{} on {}: {reason}", row.name, peer.name));
        self.recorder.write(Line::Absent(Absent {
            section: row.section,
            row: row.name.clone(),
            peer: peer.name.clone(),
            reason: reason.to_owned(),
        }))
    }
}
