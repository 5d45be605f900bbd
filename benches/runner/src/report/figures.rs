//! Tables of the experiments about memory, and of the curves.

use super::grid::{Cell, Grid};
use crate::memory::EXPERIMENTS;
use crate::record::{Line, Point};
use crate::scaling::{CURVES, Curve};
use crate::stats::median;

/// What one allocator's runs of an experiment came to: the median of each figure, by its name and unit.
type Figures = Vec<(String, f64)>;

/// A table for each experiment, a row an allocator; the best of what decides is marked.
pub fn memory(lines: &[Line]) -> Vec<(String, Grid)> {
    let mut tables = Vec::new();
    for experiment in EXPERIMENTS {
        let peers = peers_of(lines, experiment.name);
        let rows: Vec<(String, Figures)> = peers
            .into_iter()
            .map(|peer| (peer.clone(), figures(lines, experiment.name, &peer)))
            .collect();
        let Some((_, first)) = rows.first() else { continue };
        let headings = first.iter().map(|(name, _)| name.clone());
        let mut grid = Grid::new([String::new()].into_iter().chain(headings));
        let (decisive, less) = experiment.decides;
        let deciding = |figures: &Figures| {
            figures.iter().find(|(name, _)| name == decisive).map(|(_, value)| *value)
        };
        let values = rows.iter().filter_map(|(_, figures)| deciding(figures));
        let best = if less { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) };
        for (peer, figures) in &rows {
            let cell = |(name, value): &(String, f64)| {
                Cell::new(shown(*value)).mark(name == decisive && Some(*value) == best)
            };
            let name = [Cell::new(peer.clone())].into_iter();
            grid.row(name.chain(figures.iter().map(cell)));
        }
        tables.push((format!("{}: {}", experiment.name, experiment.about), grid));
    }
    tables
}

/// A figure with as many digits as it is worth.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn peers_of(lines: &[Line], row: &str) -> Vec<String> {
    let mut peers: Vec<String> = Vec::new();
    for line in lines {
        let Line::Figure(figure) = line else { continue };
        if figure.row == row && !peers.contains(&figure.peer) {
            peers.push(figure.peer.clone());
        }
    }
    peers
}

fn figures(lines: &[Line], row: &str, peer: &str) -> Figures {
    let mut figures: Vec<(String, Vec<f64>)> = Vec::new();
    for line in lines {
        let Line::Figure(figure) = line else { continue };
        if figure.row != row || figure.peer != peer {
            continue;
        }
        let name = format!("{}, {}", figure.name, figure.unit);
        match figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(figure.value),
            None => figures.push((name, vec![figure.value])),
        }
    }
    figures.into_iter().filter_map(|(name, values)| Some((name, median(&values)?))).collect()
}

/// The points of a curve by allocator, medians, in the order of `x`.
pub fn points(lines: &[Line], curve: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let of_curve = |line: &Line| match line {
        Line::Point(point) if point.curve == curve => Some(point.clone()),
        _ => None,
    };
    let points: Vec<Point> = lines.iter().filter_map(of_curve).collect();
    let mut peers: Vec<String> = Vec::new();
    for point in &points {
        if !peers.contains(&point.peer) {
            peers.push(point.peer.clone());
        }
    }
    let order = |peer: &String| crate::peers::rank(peer);
    peers.sort_by_key(order);
    let of_peer = |peer: String| {
        let mut xs: Vec<f64> = points.iter().filter(|p| p.peer == peer).map(|p| p.x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let at = |&x: &f64| {
            let ys: Vec<f64> =
                points.iter().filter(|p| p.peer == peer && p.x == x).map(|p| p.y).collect();
            Some((x, median(&ys)?))
        };
        let line = xs.iter().filter_map(at).collect();
        (peer, line)
    };
    peers.into_iter().map(of_peer).collect()
}

/// A table for each curve, a row an allocator, a column a point.
pub fn curves(lines: &[Line]) -> Vec<(&'static Curve, Grid)> {
    let mut tables = Vec::new();
    for curve in CURVES {
        let rows = points(lines, curve.name);
        let mut xs: Vec<f64> = rows.iter().flat_map(|(_, line)| line.iter().map(|p| p.0)).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        if xs.is_empty() {
            continue;
        }
        let best = |x: f64| {
            let ys = rows.iter().flat_map(|(_, line)| line).filter(|p| p.0 == x).map(|p| p.1);
            ys.min_by(f64::total_cmp)
        };
        let mut grid = Grid::new([String::new()].into_iter().chain(xs.iter().map(|&x| short(x))));
        for (peer, line) in &rows {
            let cell = |&x: &f64| match line.iter().find(|point| point.0 == x) {
                Some(&(_, y)) => Cell::new(shown(y)).mark(Some(y) == best(x)),
                None => Cell::new("-"),
            };
            let name = [Cell::new(peer.clone())].into_iter();
            grid.row(name.chain(xs.iter().map(cell)));
        }
        tables.push((curve, grid));
    }
    tables
}

/// A number of bytes or of things: `64Mi`, `10k`.
pub fn short(x: f64) -> String {
    const KI: f64 = 1024.0;
    const KILO: f64 = 1000.0;
    let whole = |unit: f64| x >= unit && x % unit == 0.0;
    match () {
        () if whole(KI * KI * KI) => format!("{}Gi", x / (KI * KI * KI)),
        () if whole(KI * KI) => format!("{}Mi", x / (KI * KI)),
        () if whole(KILO) => format!("{}k", x / KILO),
        () => x.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Figure;

    fn figure(peer: &str, name: &str, value: f64) -> Line {
        Line::Figure(Figure {
            row: "burst".into(),
            peer: peer.into(),
            name: name.into(),
            value,
            unit: "%".into(),
        })
    }

    #[test]
    fn an_experiment_has_a_row_an_allocator_and_marks_who_gives_back_most() {
        let lines = [
            figure("glibc", "burst", 200.0),
            figure("glibc", "back", 1.0),
            figure("tiermalloc", "burst", 210.0),
            figure("tiermalloc", "back", 98.0),
            figure("tiermalloc", "back", 99.0),
        ];
        let (title, grid) = memory(&lines).remove(0);
        assert!(title.starts_with("burst: "), "{title}");
        let text = grid.text();
        assert!(
            text.contains("back, %") && text.contains("*98.5") && text.contains(" 1.0"),
            "{text}"
        );
    }

    #[test]
    fn points_are_medians_in_order() {
        let point = |x: f64, y: f64| {
            Line::Point(Point { curve: "heap".into(), peer: "glibc".into(), x, y })
        };
        let lines = [point(4.0, 1.0), point(2.0, 5.0), point(2.0, 7.0), point(2.0, 6.0)];
        assert_eq!(points(&lines, "heap"), [("glibc".to_owned(), vec![(2.0, 6.0), (4.0, 1.0)])]);
        assert_eq!(curves(&lines).len(), 1);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(67_108_864.0), "64Mi");
        assert_eq!((short(10_000.0), short(64.0)), ("10k".into(), "64".into()));
    }
}
