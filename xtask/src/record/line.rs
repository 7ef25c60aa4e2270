/*!
A line of the terminal as it looks: its text in runs of one style, with resolved colours.
*/

use vt100::{Cell, Color, Screen};

/// A colour: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Rgb(pub u8, pub u8, pub u8);

/// Text and background where a program sets no colour.
pub(super) const FOREGROUND: Rgb = Rgb(0xd6, 0xdd, 0xe6);
pub(super) const BACKGROUND: Rgb = Rgb(0x10, 0x15, 0x1c);
/// The 16 named colours, chosen to be readable on [`BACKGROUND`].
const PALETTE: [Rgb; 16] = [
    Rgb(0x3b, 0x42, 0x4e),
    Rgb(0xf0, 0x71, 0x78),
    Rgb(0x7f, 0xc9, 0x7f),
    Rgb(0xe6, 0xc0, 0x6a),
    Rgb(0x6c, 0xae, 0xf5),
    Rgb(0xc7, 0x92, 0xea),
    Rgb(0x5f, 0xc9, 0xd0),
    Rgb(0xc8, 0xd0, 0xda),
    Rgb(0x7a, 0x84, 0x94),
    Rgb(0xff, 0x8b, 0x92),
    Rgb(0x9d, 0xe0, 0x9d),
    Rgb(0xf7, 0xd5, 0x8a),
    Rgb(0x8f, 0xc4, 0xff),
    Rgb(0xd9, 0xae, 0xf5),
    Rgb(0x86, 0xe0, 0xe6),
    Rgb(0xff, 0xff, 0xff),
];

/// How a run of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Colour of the text.
    pub foreground: Rgb,
    /// Colour behind the text.
    pub background: Rgb,
    /// Heavy letters.
    pub bold: bool,
    /// Slanted letters.
    pub italic: bool,
    /// A line below the letters.
    pub underline: bool,
}

/// Adjacent cells of one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first column.
    pub column: u16,
    /// Number of columns.
    pub columns: u16,
    /// Their text.
    pub text: String,
    /// Whether it is one character of two columns.
    pub wide: bool,
    /// How they look.
    pub style: Style,
}

/// A line of the screen, without the blanks at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(pub Vec<Run>);

/// The lines of a screen, with its cursor.
pub(super) fn lines(screen: &Screen) -> Vec<Line> {
    let (rows, columns) = screen.size();
    let cursor = (!screen.hide_cursor()).then(|| screen.cursor_position());
    let line = |row| {
        let mut line = Line::default();
        for column in 0..columns.get() {
            if let Some(cell) = screen.cell(row, column) {
                line.push(column, cell, cursor == Some((row, column)));
            }
        }
        line.trim();
        line
    };
    (0..rows.get()).map(line).collect()
}

// === impl Line ===

impl Line {
    fn push(&mut self, column: u16, cell: &Cell, cursor: bool) {
        // The second column of a wide character, which its first column has counted.
        if cell.is_wide_continuation() {
            return;
        }
        let style = Style::of(cell, cursor);
        let wide = cell.is_wide();
        let columns = if wide { 2 } else { 1 };
        let text = if cell.has_contents() { cell.contents() } else { " " };
        match self.0.last_mut() {
            // A wide character has a run of its own, because fonts differ in how wide it is. A
            // column of a table has one, because viewers may show several spaces as one.
            Some(run)
                if run.style == style && !wide && !run.wide && (text == " " || !run.text.ends_with("  ")) =>
            {
                run.text.push_str(text);
                run.columns += 1;
            }
            _ => self.0.push(Run {
                column,
                columns,
                text: text.to_owned(),
                wide,
                style,
            }),
        }
    }

    fn trim(&mut self) {
        while let Some(run) = self.0.last_mut() {
            if run.style.background != BACKGROUND || run.style.underline {
                return;
            }
            let kept = run.text.trim_end_matches(' ').len();
            run.columns -= u16::try_from(run.text.len() - kept).unwrap_or(run.columns);
            run.text.truncate(kept);
            if kept > 0 {
                return;
            }
            self.0.pop();
        }
    }
}

// === impl Style ===

impl Style {
    fn of(cell: &Cell, cursor: bool) -> Self {
        let bright = |color| match color {
            // Terminals show bold text of a dark colour in its bright variant.
            Color::Idx(index @ 0..8) if cell.bold() => Color::Idx(index + 8),
            other => other,
        };
        let mut foreground = resolve(bright(cell.fgcolor()), FOREGROUND);
        let mut background = resolve(cell.bgcolor(), BACKGROUND);
        if cell.inverse() != cursor {
            std::mem::swap(&mut foreground, &mut background);
        }
        if cell.dim() {
            foreground = mixed(foreground, background);
        }
        Self {
            foreground,
            background,
            bold: cell.bold(),
            italic: cell.italic(),
            underline: cell.underline(),
        }
    }
}

fn resolve(color: Color, default: Rgb) -> Rgb {
    match color {
        Color::Default => default,
        Color::Rgb(red, green, blue) => Rgb(red, green, blue),
        Color::Idx(index) => indexed(index),
    }
}

/// A colour of xterm's table: 16 named ones, a cube of 6 x 6 x 6, and 24 greys.
fn indexed(index: u8) -> Rgb {
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        0..16 => PALETTE[usize::from(index)],
        16..232 => {
            let cube = index - 16;
            Rgb(level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            Rgb(grey, grey, grey)
        }
    }
}

/// A third of the way from the text's colour to the background.
fn mixed(Rgb(r, g, b): Rgb, Rgb(to_r, to_g, to_b): Rgb) -> Rgb {
    let mix = |from: u8, to: u8| u8::try_from((2 * u16::from(from) + u16::from(to)) / 3).unwrap_or(from);
    Rgb(mix(r, to_r), mix(g, to_g), mix(b, to_b))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn shown(output: &str) -> Vec<Line> {
        let size = |number| NonZeroU16::new(number).unwrap();
        let mut parser = vt100::Parser::new(size(3), size(20), 0);
        // Without the cursor, which is a run of its own.
        parser.process(b"\x1b[?25l");
        parser.process(output.as_bytes());
        lines(parser.screen())
    }

    fn only(output: &str) -> Run {
        let [run] = <[Run; 1]>::try_from(shown(output).remove(0).0).unwrap();
        run
    }

    #[test]
    fn runs_are_cut_where_the_style_changes_and_blanks_at_the_end_are_left_out() {
        let line = shown("a \x1b[32mok\x1b[0m b   ").remove(0);
        let runs: Vec<_> = line
            .0
            .iter()
            .map(|run| (run.column, run.columns, run.text.as_str()))
            .collect();
        assert_eq!(runs, [(0, 2, "a "), (2, 2, "ok"), (4, 2, " b")]);
        assert_eq!(shown("a")[1], Line::default());
    }

    #[test]
    fn colours_are_resolved() {
        assert_eq!(only("x").style.foreground, FOREGROUND);
        assert_eq!(only("\x1b[31mx").style.foreground, PALETTE[1]);
        assert_eq!(only("\x1b[1;31mx").style.foreground, PALETTE[9]);
        assert_eq!(only("\x1b[92mx").style.foreground, PALETTE[10]);
        assert_eq!(only("\x1b[38;5;196mx").style.foreground, Rgb(255, 0, 0));
        assert_eq!(only("\x1b[38;5;255mx").style.foreground, Rgb(238, 238, 238));
        assert_eq!(only("\x1b[38;2;1;2;3mx").style.foreground, Rgb(1, 2, 3));
        assert_eq!(only("\x1b[44mx").style.background, PALETTE[4]);
        let inverse = only("\x1b[7mx").style;
        assert_eq!((inverse.foreground, inverse.background), (BACKGROUND, FOREGROUND));
        let dim = only("\x1b[2mx").style.foreground;
        assert!(dim.0 < FOREGROUND.0 && dim.0 > BACKGROUND.0, "{dim:?}");
    }

    #[test]
    fn wide_characters_are_runs_of_two_columns() {
        let line = shown("a\u{6f22}\u{5b57}b").remove(0);
        let runs: Vec<_> = line
            .0
            .iter()
            .map(|run| (run.column, run.columns, run.text.as_str()))
            .collect();
        assert_eq!(
            runs,
            [(0, 1, "a"), (1, 2, "\u{6f22}"), (3, 2, "\u{5b57}"), (5, 1, "b")]
        );
        // A combining character belongs to the column before it.
        let accent = only("e\u{301}x");
        assert_eq!((accent.columns, accent.text.as_str()), (2, "e\u{301}x"));
    }

    #[test]
    fn columns_of_a_table_are_runs() {
        let line = shown("a b   c").remove(0);
        let runs: Vec<_> = line.0.iter().map(|run| (run.column, run.text.as_str())).collect();
        assert_eq!(runs, [(0, "a b   "), (6, "c")]);
    }

    #[test]
    fn the_cursor_is_a_block() {
        let size = |number| NonZeroU16::new(number).unwrap();
        let mut parser = vt100::Parser::new(size(1), size(9), 0);
        parser.process(b"$ ");
        let line = lines(parser.screen()).remove(0);
        let cursor = line.0.last().unwrap();
        assert_eq!((cursor.column, cursor.columns), (2, 1));
        assert_eq!(cursor.style.background, FOREGROUND);
    }
}
