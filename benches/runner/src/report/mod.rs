//! What a person sees: tables on the terminal, and a directory with tables, plots and raw data.

mod grid;
mod tables;

use crate::record::{Line, Section};
use crate::summary::Matrix;

/// The tables of a series, as text.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for section in [Section::Preload, Section::Real, Section::Global] {
        if let Some(matrix) = Matrix::of(lines, section) {
            for (title, grid) in tables::of(&matrix) {
                text.push_str(&format!("\n{title}\n\n{}", grid.text()));
            }
            text.push_str(&tables::standings(&matrix, "\n", ""));
        }
    }
    let absent = tables::absent(lines);
    if !absent.is_empty() {
        text.push_str("\nNot measured:\n");
        absent.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}
