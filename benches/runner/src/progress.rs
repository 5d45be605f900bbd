//! The progress bar, with an estimate of the time left that knows how long each run takes.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One kind of run: table, row and allocator.
pub type Key = (usize, usize, usize);

/// What is left to do, and how long it takes. Shown on a terminal, silent elsewhere.
pub struct Progress {
    bar: ProgressBar,
    /// Seconds that the last run of its kind took.
    known: HashMap<Key, f64>,
    /// How many runs of its kind are left.
    left: HashMap<Key, u32>,
}

/// Seconds around a run: starting it, reading what it wrote.
const AROUND_S: f64 = 0.01;

impl Progress {
    /// The progress of these kinds of runs, each `rounds` times.
    pub fn new(kinds: &[Key], rounds: u32) -> Self {
        let bar = ProgressBar::new(kinds.len() as u64 * u64::from(rounds));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {prefix}  {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            known: HashMap::new(),
            left: kinds.iter().map(|&kind| (kind, rounds)).collect(),
        }
    }

    /// A run begins.
    pub fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// A run of this kind has ended after so many seconds.
    pub fn end(&mut self, kind: Key, seconds: f64) {
        self.known.insert(kind, seconds);
        if let Some(left) = self.left.get_mut(&kind) {
            *left = left.saturating_sub(1);
        }
        self.bar.inc(1);
        self.bar.set_prefix(format!("{} left", shown(self.seconds_left())));
    }

    /// There will be no more runs of this kind.
    pub fn drop_kind(&mut self, kind: Key) {
        if let Some(left) = self.left.remove(&kind) {
            self.bar.inc(u64::from(left));
        }
    }

    /// What was learnt in runs of other lengths counts by this factor from now on.
    pub fn rescale(&mut self, factor: f64) {
        self.known.values_mut().for_each(|seconds| *seconds *= factor);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Kinds that have not run yet are taken to last as long as those that have, on the average.
    fn seconds_left(&self) -> f64 {
        let average = self.known.values().sum::<f64>() / self.known.len().max(1) as f64;
        let of_kind = |(kind, &left): (&Key, &u32)| {
            (self.known.get(kind).unwrap_or(&average) + AROUND_S) * f64::from(left)
        };
        self.left.iter().map(of_kind).sum()
    }
}

/// `45 s`, `3 min 20 s`.
pub fn shown(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if whole < 60 {
        format!("{whole} s")
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_knows_each_kind_and_guesses_the_others() {
        let (slow, quick, unknown) = ((0, 0, 0), (0, 0, 1), (0, 1, 0));
        let mut progress = Progress::new(&[slow, quick, unknown], 2);
        progress.end(slow, 3.0);
        progress.end(quick, 1.0);
        // One of each that is known, two of the one that is guessed to take 2 s.
        let expected = 3.0 + 1.0 + 2.0 * 2.0 + 4.0 * AROUND_S;
        assert!((progress.seconds_left() - expected).abs() < 1e-9);
        progress.drop_kind(unknown);
        assert!((progress.seconds_left() - 4.0 - 2.0 * AROUND_S).abs() < 1e-9);
        progress.finish();
    }

    #[test]
    fn times_are_shown_in_minutes_when_they_are_long() {
        assert_eq!((shown(45.2), shown(200.0)), ("45 s".into(), "3 min 20 s".into()));
    }
}
