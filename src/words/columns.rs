//! Tables for people, as the words print them.

use std::fmt::Write;

/// Columns as wide as their widest cell.
pub(super) struct Table<const N: usize> {
    rows: Vec<Row<N>>,
}

enum Row<const N: usize> {
    Cells([String; N]),
    /// Belongs to the row above and takes the whole line.
    Note(String),
}

impl<const N: usize> Table<N> {
    /// A table under its heading.
    pub(super) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![Row::Cells(heading.map(str::to_owned))] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(Row::Cells(cells));
    }

    /// Words on the row above.
    pub(super) fn note(&mut self, note: String) {
        self.rows.push(Row::Note(note));
    }

    /// Onto the page, below a blank line.
    pub(super) fn draw(self, page: &mut String) {
        let mut widths = [0; N];
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        line(page, "");
        for row in self.rows {
            match row {
                Row::Cells(cells) => {
                    let cells: Vec<_> =
                        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
                    line(page, &cells.join("  "));
                }
                Row::Note(note) => line(page, &format!("  {note}")),
            }
        }
    }
}

/// One line of a page, without blanks at its end.
pub(super) fn line(page: &mut String, text: &str) {
    writeln!(page, "{}", text.trim_end()).expect("a String takes everything");
}
