//! A table of text, for a terminal and for Markdown.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle, presets};

/// Cells by row and column below a row of headings.
pub struct Grid {
    headings: Vec<String>,
    rows: Vec<Vec<Cell>>,
    /// Whether all but the first column are figures, which stand to the right.
    is_of_figures: bool,
}

/// The text of a cell, and whether it is the one to look at.
#[derive(Clone, Default)]
pub struct Cell {
    text: String,
    marked: bool,
}

impl Cell {
    /// A cell with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), marked: false }
    }

    /// The same, marked if so.
    pub fn mark(self, marked: bool) -> Self {
        Self { marked, ..self }
    }
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Self {
        Self::new(text)
    }
}

impl Grid {
    /// A grid with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        let headings = headings.into_iter().map(Into::into).collect();
        Self { headings, rows: Vec::new(), is_of_figures: true }
    }

    /// A grid of words with these headings.
    pub fn of_words<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { is_of_figures: false, ..Self::new(headings) }
    }

    /// Adds a row.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Lines for a terminal; what is marked has a star.
    pub fn text(&self) -> String {
        let star = |cell: &Cell| {
            if cell.marked { format!("*{}", cell.text) } else { cell.text.clone() }
        };
        self.render(presets::NOTHING, star)
    }

    /// Markdown; what is marked is bold.
    pub fn markdown(&self) -> String {
        let bold = |cell: &Cell| {
            let text = cell.text.replace('|', "\\|");
            if cell.marked { format!("**{text}**") } else { text }
        };
        let text = self.render(presets::ASCII_MARKDOWN, bold);
        // The preset has dashes alone and says nothing of sides.
        let others = self.headings.len().saturating_sub(1);
        let rule =
            format!("|---|{}", if self.is_of_figures { "---:|" } else { "---|" }.repeat(others));
        let lines = text.lines().enumerate();
        lines
            .map(|(at, line)| if at == 1 { format!("{rule}\n") } else { format!("{line}\n") })
            .collect()
    }

    fn render(&self, preset: TableStyle, shown: impl Fn(&Cell) -> String) -> String {
        let mut table = Table::new();
        table.load_style(preset).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.headings.clone());
        for row in &self.rows {
            table.add_row(row.iter().map(&shown));
        }
        for (number, column) in table.column_iter_mut().enumerate() {
            if number > 0 && self.is_of_figures {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.to_string();
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marked_cell_stands_out_in_both_forms() {
        let mut grid = Grid::new(["row", "x"]);
        grid.row([Cell::new("a"), Cell::new("1.00").mark(true)]);
        grid.row(["b|c", "2.00"]);
        let text = grid.text();
        assert!(text.contains("*1.00") && text.contains(" 2.00"), "{text}");
        let markdown = grid.markdown();
        assert!(markdown.contains("**1.00**") && markdown.contains("b\\|c"), "{markdown}");
        assert_eq!(markdown.lines().nth(1), Some("|---|---:|"));
        assert_eq!(Grid::of_words(["a", "b"]).markdown().lines().nth(1), Some("|---|---|"));
    }
}
