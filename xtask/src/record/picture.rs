/*!
A recording as an animated SVG, which works as an `<img>`: no scripts, no files of others.

Each row of the terminal is a strip of its contents side by side, of which the frame shows one; CSS
moves the strip in steps. The last content is the first of the strip. It is what a viewer without
animations shows, and a viewer whose user prefers reduced motion.
*/

use std::fmt::Write;
use std::time::Duration;

use super::line::{BACKGROUND, FOREGROUND, Line, Rgb, Run};
use super::timeline::{Change, LONGEST_PAUSE, Timeline};

/// Size of a letter's cell. Texts are stretched to it, whatever the viewer's font is.
const CELL: f64 = 8.4;
const ROW: u32 = 18;
const FONT_SIZE: u32 = 14;
/// From the top of a row to the feet of its letters.
const BASELINE: u32 = 14;
/// Heights of the bars above and below the terminal, and the space around it.
const TITLE_BAR: u32 = 34;
const CAPTION_BAR: u32 = 34;
const MARGIN: u32 = 14;
/// How long the last frame stays before the animation begins again.
const HOLD: Duration = Duration::from_secs(6);

const FONTS: &str = "ui-monospace,SFMono-Regular,Menlo,Consolas,&quot;DejaVu Sans Mono&quot;,&quot;Liberation Mono&quot;,monospace";
const BAR: Rgb = Rgb(0x1b, 0x22, 0x2c);
const MUTED: Rgb = Rgb(0x9a, 0xa5, 0xb1);

/// Texts of the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a> {
    /// In the bar above the terminal.
    pub title: &'a str,
    /// For readers who do not see the picture.
    pub description: &'a str,
}

/// Draws a recording of a terminal with this number of columns.
pub(super) fn draw(timeline: &Timeline, columns: u16, texts: Texts<'_>) -> String {
    let rows = timeline.rows();
    let mut distinct = Distinct::default();
    let strips: Vec<_> = rows.iter().map(|row| distinct.strip(row)).collect();
    let width = cells(columns);
    let height = ROW * u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let (outer_width, outer_height) = (
        width.ceil() + f64::from(2 * MARGIN),
        TITLE_BAR + height + 2 * MARGIN + CAPTION_BAR,
    );
    let caption = caption(timeline.left_out);
    let length = timeline.length() + HOLD;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {outer_width} {outer_height}\" width=\"{outer_width}\" \
         height=\"{outer_height}\" role=\"img\" font-family=\"{FONTS}\" font-size=\"{FONT_SIZE}\">\n\
         <title>{}</title>\n<desc>{}</desc>\n",
        escaped(texts.title),
        escaped(&format!("{} {caption}", texts.description)),
    );
    svg.push_str(&style(&strips, width, length));
    svg.push_str("<defs>\n");
    for (id, line) in distinct.0.iter().enumerate() {
        put(&mut svg, format_args!("<g id=\"l{id}\">{}</g>\n", drawn(line)));
    }
    svg.push_str("</defs>\n");
    frame(&mut svg, outer_width, outer_height, texts.title, &caption);
    put(
        &mut svg,
        format_args!(
            "<svg x=\"{MARGIN}\" y=\"{}\" width=\"{width}\" height=\"{height}\" fill=\"{}\" overflow=\"hidden\">\n",
            TITLE_BAR + MARGIN,
            hex(FOREGROUND)
        ),
    );
    for (number, strip) in strips.iter().enumerate() {
        let top = u32::try_from(number).unwrap_or_default() * ROW;
        put(
            &mut svg,
            format_args!("<g transform=\"translate(0 {top})\"><g class=\"r{number}\">"),
        );
        for (place, line) in strip.contents.iter().enumerate() {
            if distinct.0[*line].0.is_empty() {
                continue;
            }
            let x = offset(place, width);
            put(&mut svg, format_args!("<use href=\"#l{line}\" x=\"{x}\"/>"));
        }
        svg.push_str("</g></g>\n");
    }
    svg.push_str("</svg>\n</svg>\n");
    svg
}

/// What the picture says about itself.
fn caption(left_out: Duration) -> String {
    let pauses = if left_out.is_zero() {
        "Nothing is left out.".to_owned()
    } else {
        format!(
            "Pauses are shortened to {} s ({:.1} s left out); printed times are real.",
            LONGEST_PAUSE.as_secs(),
            (left_out.as_secs_f64() * 10.0).ceil() / 10.0
        )
    };
    format!("A real run, typed by a script. {pauses}")
}

/// The lines that differ, each of which is drawn once.
#[derive(Debug, Default)]
struct Distinct<'a>(Vec<&'a Line>);

/// The contents of a row.
#[derive(Debug, PartialEq, Eq)]
struct Strip {
    /// Numbers of the lines side by side, the last content first.
    contents: Vec<usize>,
    /// Which place is shown from when on.
    shown: Vec<(Duration, usize)>,
}

// === impl Distinct ===

impl<'a> Distinct<'a> {
    fn number(&mut self, line: &'a Line) -> usize {
        let known = self.0.iter().position(|other| *other == line);
        known.unwrap_or_else(|| {
            self.0.push(line);
            self.0.len() - 1
        })
    }

    fn strip(&mut self, changes: &[Change<'a>]) -> Strip {
        let last = changes.last().map(|change| self.number(change.line));
        let mut contents: Vec<_> = last.into_iter().collect();
        let mut shown = Vec::new();
        for change in changes {
            let line = self.number(change.line);
            let place = contents.iter().position(|other| *other == line);
            let place = place.unwrap_or_else(|| {
                contents.push(line);
                contents.len() - 1
            });
            shown.push((change.at, place));
        }
        Strip { contents, shown }
    }
}

/// The animations: one for each row that changes.
fn style(strips: &[Strip], width: f64, length: Duration) -> String {
    let seconds = length.as_secs_f64();
    let mut css = String::from("<style>\n");
    for (number, strip) in strips.iter().enumerate() {
        if strip.shown.len() < 2 {
            continue;
        }
        put(&mut css, format_args!("@keyframes k{number}{{"));
        for (at, place) in &strip.shown {
            let part = rounded(100.0 * at.as_secs_f64() / seconds, 1000.0);
            let x = offset(*place, width);
            put(&mut css, format_args!("{part}%{{transform:translate(-{x}px)}}"));
        }
        put(
            &mut css,
            format_args!(
                "}}\n.r{number}{{animation:k{number} {}s step-end infinite}}\n",
                rounded(seconds, 1000.0)
            ),
        );
    }
    css.push_str("@media(prefers-reduced-motion:reduce){g{animation:none!important}}\n</style>\n");
    css
}

/// The window around the terminal.
fn frame(svg: &mut String, width: f64, height: u32, title: &str, caption: &str) {
    let middle = width / 2.0;
    let (title_line, caption_line) = (TITLE_BAR / 2 + 5, height - CAPTION_BAR / 2 + 5);
    put(
        svg,
        format_args!(
            "<rect width=\"{width}\" height=\"{height}\" rx=\"9\" fill=\"{bar}\"/>\n\
             <rect y=\"{TITLE_BAR}\" width=\"{width}\" height=\"{}\" fill=\"{}\"/>\n",
            height - TITLE_BAR - CAPTION_BAR,
            hex(BACKGROUND),
            bar = hex(BAR),
        ),
    );
    for (x, color) in [
        (20, Rgb(0xf0, 0x71, 0x78)),
        (40, Rgb(0xe6, 0xc0, 0x6a)),
        (60, Rgb(0x7f, 0xc9, 0x7f)),
    ] {
        let y = TITLE_BAR / 2;
        put(
            svg,
            format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"6\" fill=\"{}\"/>", hex(color)),
        );
    }
    for (line, size, text) in [(title_line, 13, title), (caption_line, 12, caption)] {
        put(
            svg,
            format_args!(
                "\n<text x=\"{middle}\" y=\"{line}\" font-size=\"{size}\" text-anchor=\"middle\" fill=\"{}\">{}</text>",
                hex(MUTED),
                escaped(text)
            ),
        );
    }
    svg.push('\n');
}

/// A line at the left edge of its row.
fn drawn(line: &Line) -> String {
    line.0
        .iter()
        .fold(String::new(), |svg, run| svg + &drawn_run(run))
}

fn drawn_run(run: &Run) -> String {
    let (style, mut svg) = (&run.style, String::new());
    if style.background != BACKGROUND {
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{}\" width=\"{}\" height=\"{ROW}\" fill=\"{}\"/>",
                cells(run.column),
                cells(run.columns),
                hex(style.background)
            ),
        );
    }
    // Viewers may drop spaces at the edges, so the text is moved and shortened instead.
    let text = run.text.trim_start_matches(' ');
    let skipped = u16::try_from(run.text.len() - text.len()).unwrap_or_default();
    let kept = text.trim_end_matches(' ');
    let dropped = u16::try_from(text.len() - kept.len()).unwrap_or_default();
    if kept.is_empty() {
        return svg;
    }
    let mut attributes = String::new();
    if style.foreground != FOREGROUND {
        put(
            &mut attributes,
            format_args!(" fill=\"{}\"", hex(style.foreground)),
        );
    }
    for (wanted, attribute) in [
        (style.bold, " font-weight=\"bold\""),
        (style.italic, " font-style=\"italic\""),
        (style.underline, " text-decoration=\"underline\""),
    ] {
        if wanted {
            attributes.push_str(attribute);
        }
    }
    put(
        &mut svg,
        format_args!(
            "<text x=\"{}\" y=\"{BASELINE}\" textLength=\"{}\"{attributes}>{}</text>",
            cells(run.column + skipped),
            cells(run.columns - skipped - dropped),
            escaped(kept)
        ),
    );
    svg
}

/// Text as it is written in XML. Control characters cannot be written at all.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Width of a number of columns.
fn cells(columns: u16) -> f64 {
    rounded(f64::from(columns) * CELL, 10.0)
}

/// Where a place of a strip begins. Letters may be wider than their cells, so there is space
/// between places.
fn offset(place: usize, width: f64) -> f64 {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    f64::from(place) * (width.ceil() + 4.0 * CELL).round()
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

fn hex(Rgb(red, green, blue): Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Appends to a text, which cannot fail.
fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::super::line::lines;
    use super::super::timeline::Frame;
    use super::*;

    const TEXTS: Texts<'_> = Texts {
        title: "a <title>",
        description: "What it shows.",
    };

    /// A terminal of two rows that gets these outputs at these times.
    fn recording(outputs: &[(u64, &str)]) -> Timeline {
        let size = |number| NonZeroU16::new(number).unwrap();
        let mut parser = vt100::Parser::new(size(2), size(30), 0);
        parser.process(b"\x1b[?25l");
        Timeline::of(outputs.iter().map(|(millis, output)| {
            parser.process(output.as_bytes());
            Frame {
                at: Duration::from_millis(*millis),
                lines: lines(parser.screen()),
            }
        }))
    }

    fn drawing(outputs: &[(u64, &str)]) -> String {
        draw(&recording(outputs), 30, TEXTS)
    }

    #[test]
    fn text_is_escaped() {
        let svg = drawing(&[(0, "<a> & \"b\"")]);
        assert!(svg.contains(">&lt;a&gt; &amp; &quot;b&quot;</text>"), "{svg}");
        assert!(svg.contains("<title>a &lt;title&gt;</title>"), "{svg}");
        assert_eq!(escaped("\u{0}a\u{1b}"), "\u{fffd}a\u{fffd}");
    }

    #[test]
    fn colours_and_wide_characters_are_drawn_at_their_columns() {
        let svg = drawing(&[(0, "a \x1b[1;31;44mno\x1b[0m\u{6f22}b")]);
        assert!(
            svg.contains("<rect x=\"16.8\" width=\"16.8\" height=\"18\" fill=\"#6caef5\"/>"),
            "{svg}"
        );
        assert!(
            svg.contains("<text x=\"16.8\" y=\"14\" textLength=\"16.8\" fill=\"#ff8b92\" font-weight=\"bold\">no</text>"),
            "{svg}"
        );
        assert!(
            svg.contains("<text x=\"33.6\" y=\"14\" textLength=\"16.8\">\u{6f22}</text>"),
            "{svg}"
        );
        assert!(
            svg.contains("<text x=\"50.4\" y=\"14\" textLength=\"8.4\">b</text>"),
            "{svg}"
        );
    }

    #[test]
    fn a_line_is_drawn_once_and_the_last_frame_shows_without_animation() {
        let svg = drawing(&[(0, "one"), (500, "\r\nnew"), (1000, "\r\nend")]);
        // "one" and "new" were in both rows or in one of them; "new" moved up.
        assert_eq!(svg.matches(">new</text>").count(), 1, "{svg}");
        let first_places: Vec<_> = svg
            .lines()
            .filter(|line| line.contains("class=\"r"))
            .map(|line| {
                line.split("href=\"#l")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .unwrap()
            })
            .collect();
        let id = |text: &str| {
            let line = svg
                .lines()
                .find(|line| line.contains(&format!(">{text}</text>")))
                .unwrap();
            let rest = line.strip_prefix("<g id=\"l").unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        assert_eq!(first_places, [id("new"), id("end")], "{svg}");
    }

    #[test]
    fn rows_that_do_not_change_are_not_animated() {
        let svg = drawing(&[(0, "one"), (2000, "\r\nnew")]);
        assert!(!svg.contains("@keyframes k0"), "{svg}");
        // Two of eight seconds: the last frame stays for six.
        assert!(
            svg.contains("@keyframes k1{0%{transform:translate(-286px)}25%{transform:translate(-0px)}}"),
            "{svg}"
        );
        assert!(svg.contains(".r1{animation:k1 8s step-end infinite}"), "{svg}");
    }

    #[test]
    fn the_caption_has_what_is_left_out() {
        assert!(caption(Duration::ZERO).ends_with("Nothing is left out."));
        assert!(caption(Duration::from_millis(1)).contains("(0.1 s left out)"));
        let cut = caption(Duration::from_millis(13_600));
        assert!(cut.contains("shortened to 2 s (13.6 s left out);"), "{cut}");
        let svg = drawing(&[(0, "one"), (12_000, "\r\nnew")]);
        assert!(svg.contains("shortened to 2 s (10.0 s left out);"), "{svg}");
    }

    #[test]
    fn the_same_recording_is_the_same_picture() {
        let outputs = [(0, "one"), (900, "\x1b[32mtwo"), (1800, "\r\nthree")];
        assert_eq!(drawing(&outputs), drawing(&outputs));
        let svg = drawing(&outputs);
        for foreign in ["<script", "url(", "http://", "https://"] {
            let count = svg.matches(foreign).count();
            assert_eq!(count, usize::from(foreign == "http://"), "{foreign} in {svg}");
        }
    }
}
