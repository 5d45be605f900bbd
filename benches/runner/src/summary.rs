//! What the runs of a table came to: medians, ratios, means, and where we stand.

use std::collections::HashMap;

use crate::peers::OURS;
use crate::record::{Line, Run, Section};
use crate::rows::global;
use crate::stats::{Stat, geometric_mean};

/// What is compared. Less is better in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Seconds from start to end.
    Time,
    /// Seconds of processor time, in the program and in the kernel for it.
    Cpu,
    /// Peak resident memory, KiB.
    Peak,
}

impl Metric {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Time, Self::Cpu, Self::Peak];

    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Time => "Time",
            Self::Cpu => "Processor time",
            Self::Peak => "Peak resident memory",
        }
    }

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Cpu => "cpu",
            Self::Peak => "rss",
        }
    }

    fn of(self, run: &Run) -> f64 {
        match self {
            Self::Time => run.wall_s,
            Self::Cpu => run.user_s + run.system_s,
            Self::Peak => run.peak_kib as f64,
        }
    }

    /// A figure with its unit.
    pub fn shown(self, figure: f64) -> String {
        match self {
            Self::Time | Self::Cpu => format!("{figure:.3} s"),
            Self::Peak => format!("{:.1} MiB", figure / 1024.0),
        }
    }
}

/// The runs of one table.
pub struct Matrix {
    /// Which table.
    pub section: Section,
    /// What ratios are relative to.
    pub reference: String,
    /// The allocators that ran, in the order of the series.
    pub peers: Vec<String>,
    /// The rows that ran, in the order of the series.
    pub rows: Vec<String>,
    cells: HashMap<(String, String, Metric), Stat>,
}

/// Where we stand against the others.
#[derive(Debug, PartialEq)]
pub struct Standing {
    /// Rows that we and another have.
    pub rows: usize,
    /// Rows in which nobody is better.
    pub won: usize,
    /// The row in which we are furthest behind its best: the row, who is best, our figure by theirs.
    pub worst: (String, String, f64),
    /// The allocator with the best mean of all others, and the mean of our figures by its.
    pub rival: (String, f64),
    /// The mean of our figures by those of the best in each row.
    pub to_best: f64,
}

impl Matrix {
    /// The matrix of a section, if anything of it ran.
    pub fn of(lines: &[Line], section: Section) -> Option<Self> {
        let series = lines.iter().find_map(|line| match line {
            Line::Series(series) => Some(series),
            _ => None,
        })?;
        let runs: Vec<&Run> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Run(run) if run.section == section => Some(run),
                _ => None,
            })
            .collect();
        let mut samples: HashMap<(String, String, Metric), Vec<f64>> = HashMap::new();
        for run in &runs {
            for metric in Metric::ALL {
                let key = (run.row.clone(), run.peer.clone(), metric);
                samples.entry(key).or_default().push(metric.of(run));
            }
        }
        // A cell that failed later on has runs, and is out all the same.
        for line in lines {
            let Line::Absent(absent) = line else { continue };
            if absent.section == section {
                for metric in Metric::ALL {
                    samples.remove(&(absent.row.clone(), absent.peer.clone(), metric));
                }
            }
        }
        let cells: HashMap<_, _> = samples
            .into_iter()
            .filter_map(|(key, samples)| Some((key, Stat::of(&samples)?)))
            .collect();
        if cells.is_empty() {
            return None;
        }
        let ran_on = |peer: &str| cells.keys().any(|(_, p, _)| p == peer);
        let ran = |row: &str| cells.keys().any(|(r, _, _)| r == row);
        let peers = series.peers.iter().filter(|p| p.section == section && ran_on(&p.name));
        let rows = series.rows.iter().filter(|r| r.section == section && ran(&r.name));
        let reference = match section {
            Section::Global => global::REFERENCE,
            _ => &series.reference,
        };
        Some(Self {
            section,
            reference: reference.to_owned(),
            peers: peers.map(|peer| peer.name.clone()).collect(),
            rows: rows.map(|row| row.name.clone()).collect(),
            cells,
        })
    }

    /// The same with the least of each cell's runs in place of their median: what a run takes when nothing else on the
    /// machine is in its way.
    pub fn least(&self) -> Self {
        let least = |stat: &Stat| Stat { median: stat.min, ..*stat };
        Self {
            section: self.section,
            reference: self.reference.clone(),
            peers: self.peers.clone(),
            rows: self.rows.clone(),
            cells: self.cells.iter().map(|(key, stat)| (key.clone(), least(stat))).collect(),
        }
    }

    /// The figures of a cell.
    pub fn stat(&self, row: &str, peer: &str, metric: Metric) -> Option<&Stat> {
        self.cells.get(&(row.to_owned(), peer.to_owned(), metric))
    }

    /// The median of a cell.
    pub fn median(&self, row: &str, peer: &str, metric: Metric) -> Option<f64> {
        self.stat(row, peer, metric).map(|stat| stat.median)
    }

    /// The median by that of the reference.
    pub fn ratio(&self, row: &str, peer: &str, metric: Metric) -> Option<f64> {
        let reference = self.median(row, &self.reference, metric)?;
        (reference > 0.0).then_some(self.median(row, peer, metric)? / reference)
    }

    /// Who is best in a row, among those that this lets pass.
    fn best_of(
        &self,
        row: &str,
        metric: Metric,
        among: impl Fn(&str) -> bool,
    ) -> Option<(&str, f64)> {
        let candidates = self.peers.iter().filter(|peer| among(peer));
        candidates
            .filter_map(|peer| Some((peer.as_str(), self.median(row, peer, metric)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The smallest median of a row.
    pub fn best(&self, row: &str, metric: Metric) -> Option<f64> {
        self.best_of(row, metric, |_| true).map(|(_, median)| median)
    }

    /// The typical spread of a row: the middle one of its cells' spreads.
    pub fn spread(&self, row: &str, metric: Metric) -> Option<f64> {
        let spreads: Vec<f64> = self
            .peers
            .iter()
            .filter_map(|peer| self.stat(row, peer, metric).map(Stat::spread))
            .collect();
        crate::stats::median(&spreads)
    }

    /// The geometric mean of an allocator's ratios, and over how many rows.
    pub fn mean(&self, peer: &str, metric: Metric) -> Option<(f64, usize)> {
        let ratios: Vec<f64> =
            self.rows.iter().filter_map(|row| self.ratio(row, peer, metric)).collect();
        geometric_mean(ratios.iter().copied()).map(|mean| (mean, ratios.len()))
    }

    /// The geometric mean of `peer`'s figures by those of `other`, over the rows that both have.
    fn mean_by(&self, peer: &str, other: &str, metric: Metric) -> Option<f64> {
        let ratio =
            |row: &String| Some(self.median(row, peer, metric)? / self.median(row, other, metric)?);
        geometric_mean(self.rows.iter().filter_map(ratio))
    }

    /// Where we stand; `None` if we, or all others, did not run.
    pub fn standing(&self, metric: Metric) -> Option<Standing> {
        let rows: Vec<(&String, &str, f64)> = self
            .rows
            .iter()
            .filter_map(|row| {
                let ours = self.median(row, OURS, metric)?;
                let (best, median) = self.best_of(row, metric, |peer| peer != OURS)?;
                (median > 0.0).then_some((row, best, ours / median))
            })
            .collect();
        let worst = rows.iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
        let others = self.peers.iter().filter(|peer| *peer != OURS);
        let rival = others
            .filter_map(|peer| Some((peer, self.mean_by(OURS, peer, metric)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Standing {
            rows: rows.len(),
            won: rows.iter().filter(|(_, _, ratio)| *ratio <= 1.0).count(),
            worst: (worst.0.clone(), worst.1.to_owned(), worst.2),
            rival: (rival.0.clone(), rival.1),
            to_best: geometric_mean(rows.iter().map(|row| row.2))?,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::{Absent, PeerNote, RowNote, Series};

    /// A series of two rows and three allocators; runs as `(row, peer, seconds, MiB)`.
    pub fn series(runs: &[(&str, &str, f64, u64)]) -> Vec<Line> {
        let section = Section::Preload;
        let note = |name: &str| PeerNote { section, name: name.into(), version: "1".into() };
        let row = |name: &str| RowNote { section, name: name.into(), about: "about".into() };
        let head = Series {
            reference: "glibc".into(),
            peers: ["glibc", OURS, "other"].map(note).into(),
            rows: ["a", "b"].map(row).into(),
            ..Series::default()
        };
        let run = |&(row, peer, seconds, mib): &(&str, &str, f64, u64)| {
            Line::Run(Run {
                section,
                row: row.into(),
                peer: peer.into(),
                round: 1,
                wall_s: seconds,
                user_s: seconds,
                system_s: 0.0,
                peak_kib: mib * 1024,
                minor_faults: 0,
                preempted: 0,
            })
        };
        std::iter::once(Line::Series(head)).chain(runs.iter().map(run)).collect()
    }

    pub const RUNS: &[(&str, &str, f64, u64)] = &[
        ("a", "glibc", 1.0, 10),
        ("a", "glibc", 3.0, 10),
        ("a", "glibc", 2.0, 10),
        ("a", OURS, 1.0, 10),
        ("a", "other", 2.0, 5),
        ("b", "glibc", 1.0, 10),
        ("b", OURS, 2.0, 10),
        ("b", "other", 0.5, 20),
    ];

    #[test]
    fn ratios_are_of_medians_to_the_reference() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap();
        assert_eq!(matrix.ratio("a", OURS, Metric::Time), Some(0.5));
        assert_eq!(matrix.ratio("b", OURS, Metric::Time), Some(2.0));
        assert_eq!(matrix.mean(OURS, Metric::Time), Some((1.0, 2)));
        assert_eq!(matrix.best("a", Metric::Peak), Some(5.0 * 1024.0));
        assert!(Matrix::of(&series(RUNS), Section::Real).is_none());
    }

    #[test]
    fn the_least_runs_stand_for_their_cells() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap().least();
        assert_eq!(matrix.median("a", "glibc", Metric::Time), Some(1.0));
        assert_eq!(matrix.ratio("a", "other", Metric::Time), Some(2.0));
        let (mean, rows) = matrix.mean(OURS, Metric::Time).unwrap();
        assert!((mean - 2f64.sqrt()).abs() < 1e-9 && rows == 2);
    }

    #[test]
    fn the_standing_counts_what_is_lost() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap();
        let standing = matrix.standing(Metric::Time).unwrap();
        assert_eq!((standing.rows, standing.won), (2, 1));
        assert_eq!(standing.worst, ("b".into(), "other".into(), 4.0));
        assert_eq!(standing.rival.0, "other");
        assert!((standing.rival.1 - 2f64.sqrt()).abs() < 1e-9);
        // Equal is won.
        let standing = matrix.standing(Metric::Peak).unwrap();
        assert_eq!(standing.won, 1);
    }

    #[test]
    fn a_cell_that_failed_is_out_even_if_it_ran_before() {
        let mut lines = series(RUNS);
        lines.push(Line::Absent(Absent {
            section: Section::Preload,
            row: "b".into(),
            peer: "other".into(),
            reason: "ended by signal 11".into(),
        }));
        let matrix = Matrix::of(&lines, Section::Preload).unwrap();
        assert_eq!(matrix.ratio("b", "other", Metric::Time), None);
        assert_eq!(matrix.mean("other", Metric::Time), Some((1.0, 1)));
    }
}
