/*!
The dashboard as a picture: an SVG with the panels in their grid, each with its values in a range of
time. It is made of the dashboard's queries, and not by Grafana, which has a theme of its own.
*/

use anyhow::{Context, Result};
use dashboard::{Kind, Panel, Query, Range, Series};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::panels::format;

/// Size of a cell of the grid, which has 24 columns.
const CELL: (u32, u32) = (50, 34);
const COLUMNS: u32 = 24;
/// Space around the panels, and between two of them.
const MARGIN: u32 = 12;
const GAP: u32 = 8;
/// Height of the caption below the panels.
const CAPTION: u32 = 34;
const CAPTION_TEXT: &str = "Drawn by `cargo xtask demo --dashboard --picture` from the dashboard's queries. Grafana draws it with its own theme.";
/// Height of a panel's title, and of its legend with so many lines.
const TITLE: u32 = 28;
const LEGEND_LINES: usize = 3;
const LEGEND_LINE: u32 = 15;
/// Sizes of letters, and the width of those in a legend.
const LETTERS: (u32, u32, u32) = (15, 12, 34);
const LETTER_WIDTH: u32 = 6;
/// Width of a line's sign in a legend, with the space behind it.
const SIGN: u32 = 16;
/// A page and its panels.
const PAGE: RGBColor = RGBColor(244, 245, 245);
const FRAME: RGBColor = RGBColor(216, 218, 220);
/// Colours that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// What a panel without values shows.
const NO_DATA: &str = "No data";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel with the series of each of its queries.
pub(super) type Filled<'a> = (&'a Panel, Vec<Vec<Series>>);

/// A line of a panel.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The picture of these panels in this range of time.
pub(super) fn draw(panels: &[Filled<'_>], range: Range) -> Result<String> {
    let rows = panels.iter().map(|(panel, _)| panel.grid.y + panel.grid.height);
    let rows = rows.max().unwrap_or_default();
    let size = (COLUMNS * CELL.0 + 2 * MARGIN, rows * CELL.1 + MARGIN + CAPTION);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&PAGE)?;
        for (panel, series) in panels {
            let grid = panel.grid;
            let place = area.clone().shrink(
                (MARGIN + grid.x * CELL.0, MARGIN + grid.y * CELL.1),
                (grid.width * CELL.0 - GAP, grid.height * CELL.1 - GAP),
            );
            fill(&place, panel, series, range)
                .with_context(|| format!("drawing the panel {}", panel.title))?;
        }
        let caption = text(LETTERS.1, RGBColor(80, 84, 88), HPos::Left);
        let below = pixels(size.1 - CAPTION / 2);
        area.draw_text(CAPTION_TEXT, &caption, (pixels(MARGIN), below))?;
        area.present()?;
    }
    Ok(svg)
}

fn fill(area: &Area<'_>, panel: &Panel, series: &[Vec<Series>], range: Range) -> Result<()> {
    let title = text(LETTERS.0, BLACK, HPos::Left);
    let middle = pixels(TITLE / 2);
    if panel.kind == Kind::Row {
        return Ok(area.draw_text(&panel.title, &title, (0, middle))?);
    }
    let (width, height) = area.dim_in_pixel();
    let frame = [(0, 0), (pixels(width), pixels(height))];
    area.draw(&Rectangle::new(frame, WHITE.filled()))?;
    area.draw(&Rectangle::new(frame, FRAME))?;
    area.draw_text(&panel.title, &title, (10, middle))?;
    let lines = lines(&panel.queries, series);
    let unit = panel.queries.first().map_or("", |query| query.unit.as_str());
    let centre = (pixels(width / 2), pixels(u32::midpoint(TITLE, height)));
    if lines.is_empty() {
        let style = text(LETTERS.1, RGBColor(120, 124, 128), HPos::Center);
        return Ok(area.draw_text(NO_DATA, &style, centre)?);
    }
    if panel.kind == Kind::Stat {
        let values = lines.iter().filter_map(|line| line.points.last());
        let values: Vec<_> = values.map(|(_, value)| format(*value, unit)).collect();
        let style = text(LETTERS.2, COLOURS[0], HPos::Center);
        return Ok(area.draw_text(&values.join(", "), &style, centre)?);
    }
    let legend = legend(&lines, width - 20);
    let legend_height = LEGEND_LINE * u32::try_from(legend.len())? + 8;
    let plot = area
        .clone()
        .shrink((4, TITLE), (width - 12, height - TITLE - legend_height));
    draw_lines(&plot, &lines, unit, range)?;
    let style = text(LETTERS.1, BLACK, HPos::Left);
    for (row, entries) in legend.iter().enumerate() {
        let y = pixels(height - legend_height + LEGEND_LINE * u32::try_from(row)? + LEGEND_LINE / 2);
        for entry in entries {
            let x = pixels(entry.x + 10);
            if let Some(colour) = entry.colour {
                let sign = [(x, y - 2), (x + 10, y + 2)];
                area.draw(&Rectangle::new(sign, colour.filled()))?;
            }
            area.draw_text(&entry.text, &style, (x + pixels(SIGN), y))?;
        }
    }
    Ok(())
}

/// The lines of all queries that have a value, those with the largest last values first.
fn lines(queries: &[Query], series: &[Vec<Series>]) -> Vec<Line> {
    let mut lines: Vec<_> = queries
        .iter()
        .zip(series)
        .flat_map(|(query, series)| series.iter().map(move |one| (query, one)))
        .filter(|(_, one)| !one.points.is_empty())
        .map(|(query, one)| Line {
            name: query.name_of(&one.labels),
            points: one.points.clone(),
        })
        .collect();
    let last = |line: &Line| {
        line.points
            .iter()
            .rev()
            .map(|(_, value)| *value)
            .find(|value| value.is_finite())
    };
    lines.sort_by(|a, b| {
        let by_value = last(b).partial_cmp(&last(a)).unwrap_or(std::cmp::Ordering::Equal);
        by_value.then_with(|| a.name.cmp(&b.name))
    });
    lines
}

fn draw_lines(area: &Area<'_>, lines: &[Line], unit: &str, range: Range) -> Result<()> {
    let values = || {
        let points = lines.iter().flat_map(|line| &line.points);
        points.map(|(_, value)| *value).filter(|value| value.is_finite())
    };
    let top = match values().fold(0.0, f64::max) {
        0.0 => 1.0,
        most => most * 1.08,
    };
    let bottom = values().fold(0.0, f64::min) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .margin_right(10)
        .x_label_area_size(22)
        .y_label_area_size(66)
        .build_cartesian_2d(0.0..(range.end - range.begin).max(range.step), bottom..top)?;
    let label = text(LETTERS.1, RGBColor(80, 84, 88), HPos::Left);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FRAME)
        .axis_style(FRAME)
        .label_style(label)
        .x_labels(5)
        .y_labels(4)
        .x_label_formatter(&|seconds| minutes(*seconds))
        .y_label_formatter(&|value| format(*value, unit))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        for part in parts(&line.points, range.step) {
            let points = part.iter().map(|(time, value)| (time - range.begin, *value));
            if let [(time, value)] = part {
                let point = Circle::new((time - range.begin, *value), 2, colour.filled());
                chart.draw_series([point])?;
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            }
        }
    }
    Ok(())
}

/// The parts of a line between values that are missing or no numbers.
fn parts(points: &[(f64, f64)], step: f64) -> Vec<&[(f64, f64)]> {
    let is_joined =
        |a: &(f64, f64), b: &(f64, f64)| b.0 - a.0 < 1.5 * step && a.1.is_finite() == b.1.is_finite();
    points
        .chunk_by(is_joined)
        .filter(|part| part[0].1.is_finite())
        .collect()
}

/// Time since the begin, as on a clock: `1:05`.
fn minutes(seconds: f64) -> String {
    format!(
        "{:.0}:{:02.0}",
        (seconds / 60.0).floor(),
        (seconds % 60.0).floor()
    )
}

/// A word of a legend.
#[derive(Debug, PartialEq)]
struct Entry {
    x: u32,
    text: String,
    /// The colour of its line; none for the number of those that have no place.
    colour: Option<RGBColor>,
}

/// The lines of a legend of this width. Names that do not fit into it are counted.
fn legend(lines: &[Line], width: u32) -> Vec<Vec<Entry>> {
    let mut rows: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut x = 0;
    let most = (width - SIGN) / LETTER_WIDTH;
    // The count takes the place of a name.
    let count_width = 14 * LETTER_WIDTH + SIGN;
    for (index, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let name = shortened(&line.name, most);
        let letters = u32::try_from(name.chars().count()).unwrap_or(most);
        let needed = SIGN + letters * LETTER_WIDTH + 12;
        let is_last = index + 1 == lines.len();
        let limit = if rows.len() == LEGEND_LINES && !is_last {
            width - count_width
        } else {
            width
        };
        if x > 0 && x + needed > limit {
            if rows.len() == LEGEND_LINES {
                let text = format!("{} more", lines.len() - index);
                rows.last_mut().unwrap_or(&mut Vec::new()).push(Entry {
                    x,
                    text,
                    colour: None,
                });
                return rows;
            }
            rows.push(Vec::new());
            x = 0;
        }
        if let Some(row) = rows.last_mut() {
            row.push(Entry {
                x,
                text: name,
                colour: Some(*colour),
            });
        }
        x += needed;
    }
    rows
}

fn shortened(name: &str, most: u32) -> String {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let begin: String = name.chars().take(most.saturating_sub(1)).collect();
    begin + "…"
}

fn text(size: u32, colour: RGBColor, position: HPos) -> TextStyle<'static> {
    TextStyle {
        font: ("sans-serif", size).into(),
        color: colour.to_backend_color(),
        pos: Pos::new(position, VPos::Center),
    }
}

fn pixels(length: u32) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
