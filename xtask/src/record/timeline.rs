/*!
What the screen showed and when: without frames that look the same, without frames that are too
short to be seen, and without long pauses.
*/

use std::time::Duration;

use super::line::Line;

/// A longer pause is shortened to this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Frames that follow each other faster than this are one.
const SHORTEST_FRAME: Duration = Duration::from_millis(60);

/// The screen from a point in time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Time since the first frame.
    pub at: Duration,
    /// The lines, as many in each frame.
    pub lines: Vec<Line>,
}

/// A recording that can be drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeline {
    /// The frames. The first one is at 0.
    frames: Vec<Frame>,
    /// The sum of what the pauses were shortened by.
    pub left_out: Duration,
}

/// The content of a row of the screen from a point in time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change<'a> {
    /// Time since the first frame.
    pub at: Duration,
    /// The new content.
    pub line: &'a Line,
}

// === impl Timeline ===

impl Timeline {
    /// Takes frames in the order of their times.
    pub(super) fn of(recorded: impl IntoIterator<Item = Frame>) -> Self {
        let mut frames: Vec<Frame> = Vec::new();
        for frame in recorded {
            match frames.last_mut() {
                Some(last) if last.lines == frame.lines => {}
                Some(last) if frame.at < last.at + SHORTEST_FRAME => last.lines = frame.lines,
                _ => frames.push(frame),
            }
        }
        // A frame that was replaced can look like the one before it.
        frames.dedup_by(|next, last| next.lines == last.lines);
        let mut left_out = frames.first().map_or(Duration::ZERO, |first| first.at);
        let mut pauses = Duration::ZERO;
        let mut previous = left_out;
        for frame in &mut frames {
            let pause = frame.at.saturating_sub(previous);
            previous = frame.at;
            let shortened = pause.saturating_sub(LONGEST_PAUSE);
            left_out += shortened;
            pauses += shortened;
            frame.at -= left_out;
        }
        Self {
            frames,
            left_out: pauses,
        }
    }

    /// The time of the last frame.
    pub(super) fn length(&self) -> Duration {
        self.frames.last().map_or(Duration::ZERO, |frame| frame.at)
    }

    /// For each row its contents in their order. The first change of a row is at 0.
    pub(super) fn rows(&self) -> Vec<Vec<Change<'_>>> {
        let count = self.frames.first().map_or(0, |frame| frame.lines.len());
        let mut rows = vec![Vec::<Change<'_>>::new(); count];
        for frame in &self.frames {
            for (row, line) in rows.iter_mut().zip(&frame.lines) {
                if row.last().is_none_or(|last| last.line != line) {
                    row.push(Change { at: frame.at, line });
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{BACKGROUND, FOREGROUND, Run, Style};
    use super::*;

    fn line(text: &str) -> Line {
        let style = Style {
            foreground: FOREGROUND,
            background: BACKGROUND,
            bold: false,
            italic: false,
            underline: false,
        };
        let columns = u16::try_from(text.len()).unwrap();
        Line(vec![Run {
            column: 0,
            columns,
            text: text.to_owned(),
            wide: false,
            style,
        }])
    }

    fn frame(millis: u64, texts: [&str; 2]) -> Frame {
        Frame {
            at: Duration::from_millis(millis),
            lines: texts.map(line).to_vec(),
        }
    }

    fn times(timeline: &Timeline) -> Vec<u128> {
        timeline.frames.iter().map(|frame| frame.at.as_millis()).collect()
    }

    #[test]
    fn only_rows_that_change_have_changes() {
        let timeline = Timeline::of([
            frame(0, ["a", "b"]),
            frame(100, ["a", "b"]),
            frame(500, ["a", "c"]),
            frame(900, ["d", "c"]),
        ]);
        assert_eq!(times(&timeline), [0, 500, 900]);
        let rows = timeline.rows();
        let row = |row: usize| -> Vec<_> {
            let change = |change: &Change<'_>| (change.at.as_millis(), change.line.0[0].text.clone());
            rows[row].iter().map(change).collect()
        };
        assert_eq!(row(0), [(0, "a".to_owned()), (900, "d".to_owned())]);
        assert_eq!(row(1), [(0, "b".to_owned()), (500, "c".to_owned())]);
    }

    #[test]
    fn frames_that_are_too_short_are_one_with_the_last_content() {
        let timeline = Timeline::of([
            frame(0, ["a", "b"]),
            frame(100, ["c", "b"]),
            frame(130, ["d", "b"]),
            frame(161, ["e", "b"]),
        ]);
        assert_eq!(times(&timeline), [0, 100, 161]);
        assert_eq!(timeline.frames[1].lines[0], line("d"));
        // A flash that leaves what was there does not make a frame.
        let flash = Timeline::of([
            frame(0, ["a", "b"]),
            frame(100, ["c", "b"]),
            frame(130, ["a", "b"]),
        ]);
        assert_eq!(times(&flash), [0]);
    }

    #[test]
    fn long_pauses_are_shortened_and_counted() {
        let timeline = Timeline::of([
            frame(5_000, ["a", "b"]),
            frame(7_000, ["b", "b"]),
            frame(17_000, ["c", "b"]),
            frame(17_500, ["d", "b"]),
            frame(20_000, ["e", "b"]),
        ]);
        assert_eq!(times(&timeline), [0, 2_000, 4_000, 4_500, 6_500]);
        assert_eq!(timeline.left_out, Duration::from_millis(8_500));
        assert_eq!(timeline.length(), Duration::from_millis(6_500));
    }

    #[test]
    fn nothing_is_recorded_of_nothing() {
        assert_eq!(Timeline::of([]).rows(), Vec::<Vec<Change<'_>>>::new());
        assert_eq!(Timeline::of([]).length(), Duration::ZERO);
    }
}
