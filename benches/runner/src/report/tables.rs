//! The tables of a section, and the sentences below them.

use super::grid::{Cell, Grid};
use crate::record::Line;
use crate::summary::{Matrix, Metric};

/// A table for each metric, with its title.
pub fn of(matrix: &Matrix) -> Vec<(String, Grid)> {
    let one = |metric: Metric| {
        let title = format!(
            "{}: {} relative to {} (less is better; the best of each row is marked)",
            matrix.section.title(),
            metric.title().to_lowercase(),
            matrix.reference
        );
        (title, relative(matrix, metric))
    };
    Metric::ALL.map(one).into()
}

/// Ratios to the reference, its own figure, and the spread.
fn relative(matrix: &Matrix, metric: Metric) -> Grid {
    let before = ["".to_owned(), matrix.reference.clone()];
    let others = || matrix.peers.iter().filter(|peer| **peer != matrix.reference);
    let headings = before.into_iter().chain(others().cloned()).chain(["spread".to_owned()]);
    let mut grid = Grid::new(headings);
    for row in &matrix.rows {
        let best = matrix.best(row, metric);
        let cell = |peer: &str, text: Option<String>| {
            let is_best = best.is_some() && matrix.median(row, peer, metric) == best;
            Cell::new(text.unwrap_or_else(|| "-".into())).mark(is_best)
        };
        let reference = &matrix.reference;
        let own = matrix.median(row, reference, metric).map(|figure| metric.shown(figure));
        let ratio = |peer: &String| {
            cell(peer, matrix.ratio(row, peer, metric).map(|ratio| format!("{ratio:.2}")))
        };
        let spread = matrix.spread(row, metric).unwrap_or(0.0);
        let mut cells = vec![Cell::new(row.clone()), cell(reference, own)];
        cells.extend(others().map(ratio));
        cells.push(Cell::new(format!("{:.1} %", spread * 100.0)));
        grid.row(cells);
    }
    let means: Vec<Option<(f64, usize)>> =
        matrix.peers.iter().map(|peer| matrix.mean(peer, metric)).collect();
    let best = means.iter().flatten().map(|mean| mean.0).min_by(f64::total_cmp);
    let shown = |peer: &String| match matrix.mean(peer, metric) {
        Some((mean, rows)) => {
            let all = rows == matrix.rows.len();
            let rows = if all { String::new() } else { format!(" ({rows} rows)") };
            Cell::new(format!("{mean:.3}{rows}")).mark(Some(mean) == best)
        }
        None => Cell::new("-"),
    };
    let mut cells = vec![Cell::new("geometric mean"), shown(&matrix.reference)];
    cells.extend(others().map(shown));
    cells.push(Cell::default());
    grid.row(cells);
    grid
}

/// Sentences about where we stand, each between these marks.
pub fn standings(matrix: &Matrix, before: &str, after: &str) -> String {
    let one = |matrix: &Matrix, metric: Metric, of: &str| {
        let standing = matrix.standing(metric)?;
        let (row, best, ratio) = &standing.worst;
        let (rival, mean) = &standing.rival;
        Some(format!(
            "{before}{}{of}: {} of {} rows at or below the best of the others; {mean:.3} of {rival}, the best of \
             them in the mean; {:.3} of the best in each row; furthest behind in {row}, {ratio:.2} of \
             {best}.{after}",
            metric.title(),
            standing.won,
            standing.rows,
            standing.to_best,
        ))
    };
    let least = matrix.least();
    // Other work only makes a run longer; memory it leaves alone.
    let least = [Metric::Time, Metric::Cpu]
        .into_iter()
        .filter_map(|metric| one(&least, metric, ", least of the runs"));
    let medians = Metric::ALL.into_iter().filter_map(|metric| one(matrix, metric, ""));
    let mut text: String = medians.chain(least).collect();
    text.push('\n');
    text
}

/// What is not in the tables, a line each.
pub fn absent(lines: &[Line]) -> Vec<String> {
    let line = |line: &Line| {
        let Line::Absent(absent) = line else { return None };
        let what: Vec<&str> = [absent.section.name(), &absent.row, &absent.peer]
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect();
        Some(format!("{}: {}", what.join(", "), absent.reason.replace('\n', " ")))
    };
    lines.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Section;
    use crate::summary::tests::{RUNS, series};

    #[test]
    fn the_table_has_ratios_means_and_marks() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap();
        let (title, grid) = of(&matrix).remove(0);
        assert!(title.contains("relative to glibc"), "{title}");
        let text = grid.text();
        let line = |start: &str| {
            text.lines().find(|line| line.trim().starts_with(start)).unwrap().to_owned()
        };
        assert!(line("a").contains("*0.50") && line("a").contains("2.000 s"), "{text}");
        assert!(line("b").contains("2.00") && line("b").contains("*0.50"), "{text}");
        assert!(line("geometric mean").contains("*0.707"), "{text}");
    }

    #[test]
    fn the_sentences_name_the_worst_row() {
        let matrix = Matrix::of(&series(RUNS), Section::Preload).unwrap();
        let text = standings(&matrix, "", "\n");
        assert!(
            text.contains("Time: 1 of 2 rows") && text.contains("in b, 4.00 of other"),
            "{text}"
        );
        assert!(text.contains("Time, least of the runs: 1 of 2 rows"), "{text}");
    }
}
