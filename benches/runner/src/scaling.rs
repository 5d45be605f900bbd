//! Curves: what an operation costs when there is more of something.
//!
//! `benches/workloads/scaling.c` brings up the state of a point, does a fixed number of operations,
//! and prints what one of them costs. A flat curve is what an allocator should have; where it rises,
//! the processor's caches may be the reason, and then it does so for everybody.

use crate::files::{Places, Result};
use crate::launch::{Job, Launcher};
use crate::machine::available_bytes;
use crate::memory::parse;
use crate::order::Random;
use crate::peers::Peer;
use crate::progress::{Key, Progress};
use crate::record::{Absent, Line, Point, Recorder, RowNote, Section};
use crate::rows::{is_wanted, workloads};

/// One curve.
pub struct Curve {
    /// Its name, which `scaling.c` knows.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What is on the axis below.
    pub x_label: &'static str,
    /// What is on the axis to the left.
    pub y_label: &'static str,
    /// Where it is measured.
    xs: &'static [f64],
    /// Bytes of memory that one unit of `x` takes, with what allocators add.
    bytes: f64,
    /// The largest `x` of a quick series.
    quick: f64,
}

const MIB: f64 = 1024.0 * 1024.0;

/// All of them.
pub const CURVES: &[Curve] = &[
    Curve {
        name: "heap",
        title: "Cost of a replacement against live heap",
        x_label: "bytes alive, in objects of 16 to 1,024 bytes",
        y_label: "ns for a free and a malloc of a random object",
        xs: &[
            MIB,
            4.0 * MIB,
            16.0 * MIB,
            64.0 * MIB,
            256.0 * MIB,
            1024.0 * MIB,
            4096.0 * MIB,
            8192.0 * MIB,
        ],
        bytes: 1.6,
        quick: 64.0 * MIB,
    },
    Curve {
        name: "threads",
        title: "Cost of a replacement against threads",
        x_label: "threads at the same time",
        y_label: "ns of processor time for a free and a malloc",
        xs: &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
        bytes: 4.0 * MIB,
        quick: 16.0,
    },
    Curve {
        name: "created",
        title: "Cost of a thread against threads ever created",
        x_label: "threads that have come and gone",
        y_label: "us for a thread with 200 objects",
        xs: &[10.0, 100.0, 1000.0, 10000.0],
        bytes: 0.1 * MIB,
        quick: 1000.0,
    },
    Curve {
        name: "spans",
        title: "Cost of a large replacement against large blocks alive",
        x_label: "blocks of 264 to 520 KiB alive, one page of each written",
        y_label: "ns for a free and a malloc of a random block",
        xs: &[10.0, 100.0, 1000.0, 10000.0],
        bytes: 0.1 * MIB,
        quick: 1000.0,
    },
];

impl Curve {
    /// The points that this machine has the memory for.
    fn points(&self, is_quick: bool) -> Vec<f64> {
        let room = available_bytes().unwrap_or(0) as f64 * 0.8;
        let most = if is_quick { self.quick } else { f64::INFINITY };
        self.xs.iter().copied().filter(|&x| x <= most && x * self.bytes <= room).collect()
    }
}

/// The notes for the head of the raw data.
pub fn notes(patterns: &[String]) -> impl Iterator<Item = RowNote> {
    CURVES.iter().filter(|curve| is_wanted(curve.name, patterns)).map(|curve| RowNote {
        section: Section::Scaling,
        name: curve.name.to_owned(),
        about: format!("{}; {}", curve.title, curve.y_label),
    })
}

/// Measures the points of the curves that are asked for.
pub fn run(
    places: &Places,
    launcher: &Launcher,
    peers: &[Peer],
    patterns: &[String],
    is_quick: bool,
    seed: u64,
    recorder: &mut Recorder,
) -> Result {
    let program = workloads::compile(places, "scaling.c")?;
    let wanted: Vec<&Curve> =
        CURVES.iter().filter(|curve| is_wanted(curve.name, patterns)).collect();
    let points: Vec<(&Curve, f64)> = wanted
        .iter()
        .flat_map(|curve| curve.points(is_quick).into_iter().map(|x| (*curve, x)))
        .collect();
    let kinds: Vec<Key> = (0..points.len())
        .flat_map(|point| (0..peers.len()).map(move |peer| (0, point, peer)))
        .collect();
    let rounds = if is_quick { 1 } else { 3 };
    let mut progress = Progress::new(&kinds, rounds);
    let mut random = Random::new(seed);
    for _ in 0..rounds {
        for (number, (curve, x)) in points.iter().enumerate() {
            for at in random.permutation(peers.len()) {
                let peer = &peers[at];
                progress.begin(&format!("{} {x}: {}", curve.name, peer.name));
                let job = Job {
                    program: program.clone(),
                    args: vec![curve.name.into(), x.to_string()],
                    preload: peer.library.clone(),
                    environment: peer.environment(),
                    dir: launcher.scratch().to_owned(),
                    limit_s: 300,
                };
                let cost = launcher.run(&job).and_then(|finished| {
                    progress.end((0, number, at), finished.usage.wall_s);
                    let figures = parse(&String::from_utf8_lossy(&finished.stdout))?;
                    Ok(figures[0].1)
                });
                let (curve, peer, x) = (curve.name.to_owned(), peer.name.clone(), *x);
                recorder.write(match cost {
                    Ok(y) => Line::Point(Point { curve, peer, x, y }),
                    Err(reason) => Line::Absent(Absent {
                        section: Section::Scaling,
                        row: format!("{curve} {x}"),
                        peer,
                        reason,
                    }),
                })?;
            }
        }
    }
    progress.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_curve_has_fewer_points() {
        for curve in CURVES {
            assert!(curve.xs.is_sorted() && curve.points(true).len() >= 2, "{}", curve.name);
            assert!(curve.points(true).len() < curve.points(false).len(), "{}", curve.name);
        }
    }
}
