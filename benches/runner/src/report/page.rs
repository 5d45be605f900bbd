//! The page of a series: `README.md` beside the plots and the raw data.

use std::fmt::Write as _;

use super::grid::Grid;
use super::{figures, tables};
use crate::record::{Line, PeerNote, Section, Series};
use crate::summary::{Matrix, Metric};

/// From where a series goes, as its command says, to the root of the repository.
fn way_up(command: &str) -> String {
    let mut words = command.split_whitespace().skip_while(|&word| word != "--out").skip(1);
    "../".repeat(
        words.next().map_or(2, |dir| dir.split('/').filter(|part| !part.is_empty()).count()),
    )
}

/// The page, in Markdown.
pub fn markdown(lines: &[Line], series: &Series, matrices: &[Matrix]) -> String {
    let mut page = String::new();
    let mut put = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    put("# Measured beside others\n");
    put(&format!(
        "Made by `{}` on {}; the same raw data (`runs.jsonl`, every single run) makes this page again with \
         `cargo xtask bench --render`. What the rows do and how to read the figures: \
         [benches/README.md]({}benches/README.md). Less is better everywhere; ratios are of medians; the best \
         of a row is bold; *spread* is the distance of the quartiles in parts of the median, the middle one of the \
         row's cells. `cells.csv` has minimum, quartiles and maximum of every cell.\n",
        series.command,
        series.date,
        way_up(&series.command)
    ));
    for matrix in matrices {
        put(&section(matrix));
    }
    let memory = figures::memory(lines);
    if !memory.is_empty() {
        put(&format!("## {}\n", Section::Memory.title()));
        for (title, grid) in memory {
            put(&format!("{title}.\n\n{}", grid.markdown()));
        }
    }
    let curves = figures::curves(lines);
    if !curves.is_empty() {
        put(&format!("## {}\n", Section::Scaling.title()));
        for (curve, grid) in curves {
            put(&format!("![{}](scaling-{}.svg)\n", curve.title, curve.name));
            put(&format!("{}, by {}:\n\n{}", curve.y_label, curve.x_label, grid.markdown()));
        }
    }
    let absent = tables::absent(lines);
    if !absent.is_empty() {
        put("## Not measured\n");
        absent.iter().for_each(|line| put(&format!("- {line}")));
        put("");
    }
    put(&circumstances(series));
    page
}

fn section(matrix: &Matrix) -> String {
    let name = matrix.section.name();
    let mut text = format!("## {}\n\n", matrix.section.title());
    text.push_str(&tables::standings(matrix, "- ", "\n"));
    let _ = writeln!(text, "![geometric means]({name}-means.svg)\n");
    for metric in Metric::ALL {
        let _ = writeln!(text, "![{}]({name}-{}.svg)\n", metric.title(), metric.name());
    }
    for (title, grid) in tables::of(matrix) {
        let _ = writeln!(
            text,
            "<details><summary>{title}</summary>\n\n{}\n</details>\n",
            grid.markdown()
        );
    }
    text
}

/// Machine, allocators, rows: what somebody needs who repeats it.
fn circumstances(series: &Series) -> String {
    let mut text = String::from("## Circumstances\n\n");
    let mut machine = Grid::of_words(["machine", ""]);
    series.machine.iter().for_each(|(name, value)| machine.row([name.as_str(), value.as_str()]));
    machine.row(["share of the full work".to_owned(), series.scale.to_string()]);
    machine.row(["rounds".to_owned(), series.rounds.to_string()]);
    machine
        .row(["threads of the rows that take many".to_owned(), series.threads.max(2).to_string()]);
    machine.row(["seed of the order".to_owned(), series.seed.to_string()]);
    text.push_str(&machine.markdown());

    let note = |grid: &mut Grid, peer: &PeerNote| {
        grid.row([peer.name.as_str(), peer.version.as_str()]);
    };
    // The same allocators are preloaded in every section but one.
    for (title, is_global) in [("preloaded", false), ("linked into Rust", true)] {
        let mut grid = Grid::of_words([title, "version"]);
        let mut seen: Vec<&str> = Vec::new();
        for peer in series.peers.iter().filter(|p| (p.section == Section::Global) == is_global) {
            if !seen.contains(&peer.name.as_str()) {
                seen.push(&peer.name);
                note(&mut grid, peer);
            }
        }
        if !seen.is_empty() {
            let _ = write!(text, "\n{}", grid.markdown());
        }
    }
    text.push_str("\nRows:\n\n");
    let mut rows = Grid::of_words(["row", "what it does"]);
    for row in &series.rows {
        rows.row([row.name.as_str(), row.about.as_str()]);
    }
    text.push_str(&rows.markdown());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{RUNS, series};

    #[test]
    fn the_page_has_plots_tables_and_circumstances() {
        let lines = series(RUNS);
        let matrix = Matrix::of(&lines, Section::Preload).unwrap();
        let Line::Series(head) = &lines[0] else { unreachable!() };
        let page = markdown(&lines, head, &[matrix]);
        for part in ["preload-time.svg", "preload-means.svg", "| **0.707**", "## Circumstances"] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
    }
}
