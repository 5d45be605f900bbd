//! What a person sees: tables on the terminal, and a directory with tables, plots and raw data.
//!
//! | module | what it makes |
//! |---|---|
//! | [`tables`], [`figures`] | tables of ratios; of memory and of curves |
//! | [`grid`] | text and Markdown of a table |
//! | [`strip`], [`curves`], [`style`] | plots as SVG |
//! | [`page`] | the page that has them all |

mod curves;
mod figures;
mod grid;
mod page;
mod strip;
mod style;
mod tables;

use std::fmt::Write as _;
use std::path::Path;

use crate::files::{Result, write};
use crate::record::{Line, Section, Series};
use crate::summary::{Matrix, Metric};

/// The sections that are tables of runs.
const TABLES: [Section; 3] = [Section::Preload, Section::Real, Section::Global];

/// The tables of a series, as text.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for matrix in TABLES.into_iter().filter_map(|section| Matrix::of(lines, section)) {
        for (title, grid) in tables::of(&matrix) {
            let _ = write!(text, "\n{title}\n\n{}", grid.text());
        }
        let _ = write!(text, "\n{}", tables::standings(&matrix, "", "\n"));
    }
    for (title, grid) in figures::memory(lines) {
        let _ = write!(text, "\n{title}\n\n{}", grid.text());
    }
    for (curve, grid) in figures::curves(lines) {
        let _ = write!(
            text,
            "\n{}: {}, by {}\n\n{}",
            curve.title,
            curve.y_label,
            curve.x_label,
            grid.text()
        );
    }
    let absent = tables::absent(lines);
    if !absent.is_empty() {
        text.push_str("\nNot measured:\n");
        absent.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

/// Writes plots, tables and the page of a series into a directory.
pub fn write_to(dir: &Path, lines: &[Line]) -> Result {
    let series = lines.iter().find_map(|line| match line {
        Line::Series(series) => Some(series),
        _ => None,
    });
    let series: &Series = series.ok_or("the raw data has no description of the series")?;
    let matrices: Vec<Matrix> =
        TABLES.into_iter().filter_map(|section| Matrix::of(lines, section)).collect();
    let cannot = |e: &dyn std::fmt::Display| format!("a plot cannot be drawn: {e}");
    for matrix in &matrices {
        let name = matrix.section.name();
        let means = strip::means(matrix).map_err(|e| cannot(&e))?;
        write(&dir.join(format!("{name}-means.svg")), &means)?;
        for metric in Metric::ALL {
            let plot = strip::strip(matrix, metric).map_err(|e| cannot(&e))?;
            write(&dir.join(format!("{name}-{}.svg", metric.name())), &plot)?;
        }
    }
    for (curve, _) in figures::curves(lines) {
        let points = figures::points(lines, curve.name);
        let plot = curves::plot(curve, &points).map_err(|e| cannot(&e))?;
        write(&dir.join(format!("scaling-{}.svg", curve.name)), &plot)?;
    }
    write(&dir.join("cells.csv"), &cells(&matrices))?;
    let points = points(lines);
    if points.lines().count() > 1 {
        write(&dir.join("points.csv"), &points)?;
    }
    write(&dir.join("README.md"), &page::markdown(lines, series, &matrices))
}

/// Every cell of the tables.
fn cells(matrices: &[Matrix]) -> String {
    let mut csv = String::from("section,row,allocator,metric,median,min,p25,p75,max,runs\n");
    for matrix in matrices {
        for row in &matrix.rows {
            for peer in &matrix.peers {
                for metric in Metric::ALL {
                    let Some(stat) = matrix.stat(row, peer, metric) else { continue };
                    let _ = writeln!(
                        csv,
                        "{},{row},{peer},{},{},{},{},{},{},{}",
                        matrix.section.name(),
                        metric.name(),
                        stat.median,
                        stat.min,
                        stat.p25,
                        stat.p75,
                        stat.max,
                        stat.count
                    );
                }
            }
        }
    }
    csv
}

/// Every point of the curves.
fn points(lines: &[Line]) -> String {
    let mut csv = String::from("curve,allocator,x,cost\n");
    for line in lines {
        if let Line::Point(point) = line {
            let _ = writeln!(csv, "{},{},{},{}", point.curve, point.peer, point.x, point.y);
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{RUNS, series};

    #[test]
    fn a_series_becomes_a_directory() {
        let dir = std::env::temp_dir().join(format!("bench-report-{}", std::process::id()));
        crate::files::create_dir(&dir).unwrap();
        write_to(&dir, &series(RUNS)).unwrap();
        for file in
            ["README.md", "cells.csv", "preload-time.svg", "preload-rss.svg", "preload-means.svg"]
        {
            assert!(dir.join(file).is_file(), "{file}");
        }
        assert!(!dir.join("points.csv").exists());
        let csv = std::fs::read_to_string(dir.join("cells.csv")).unwrap();
        assert!(csv.contains("preload,a,glibc,time,2,1,1.5,2.5,3,3"), "{csv}");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(write_to(&dir, &[]).is_err());
    }
}
