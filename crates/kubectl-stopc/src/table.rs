//! Tables in kubectl's form: no lines, three spaces between the columns.

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The cells.
    pub cells: Vec<String>,
    /// How the row is coloured.
    pub tone: Tone,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it should be: no colour.
    #[default]
    Plain,
    /// On the way, or to be looked at: yellow.
    Attention,
    /// Failed: red.
    Bad,
    /// Good: green.
    Good,
}

/// The text of a table, with a line for each row. Without rows it is empty.
pub fn render(header: &[&str], rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.cells.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3)).set_cell_alignment(CellAlignment::Left);
    }
    let tones = std::iter::once(Tone::Plain).chain(rows.iter().map(|row| row.tone));
    let text = table.to_string();
    let lines = text
        .lines()
        .zip(tones)
        .map(|(line, tone)| tone.paint(line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// A cell has one line, also if its text has more.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Row ===

impl Row {
    /// A row without a colour.
    pub fn plain(cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            cells: cells.into_iter().collect(),
            tone: Tone::Plain,
        }
    }
}

// === impl Tone ===

impl Tone {
    /// The text in this colour. The screen removes colours where they do not belong.
    pub fn paint(self, text: &str) -> String {
        let colour = match self {
            Self::Plain => return text.to_owned(),
            Self::Attention => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
            Self::Good => AnsiColor::Green,
        };
        let style = Style::new().fg_color(Some(colour.into()));
        format!("{style}{text}{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_as_kubectl_does() {
        let row = |cells: [&str; 3]| Row::plain(cells.map(str::to_owned));
        let text = render(
            &["NAME", "PHASE", "REASON"],
            &[
                row(["web", "Running", ""]),
                row(["a-long-name", "Failed", "Two\nlines"]),
            ],
        );
        assert_eq!(
            text,
            "NAME          PHASE     REASON\nweb           Running\na-long-name   Failed    Two lines"
        );
        assert_eq!(render(&["NAME"], &[]), "");
    }

    #[test]
    fn a_tone_is_a_colour_around_the_line() {
        let mut bad = Row::plain(["web".to_owned()]);
        bad.tone = Tone::Bad;
        let text = render(&["NAME"], &[bad]);
        assert_eq!(text, "NAME\n\u{1b}[31mweb\u{1b}[0m");
    }
}
