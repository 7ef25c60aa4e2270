//! Distributions as curves: which share of all samples took at most how long.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::measured::Series;

const SIZE: (u32, u32) = (760, 380);
/// Blue, orange and green that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
];

/// Writes an SVG with a curve for each series.
pub(crate) fn write(file: &Path, title: &str, series: &[&Series]) -> Result<()> {
    draw(file, title, series).with_context(|| format!("drawing {}", file.display()))
}

fn draw(file: &Path, title: &str, series: &[&Series]) -> Result<()> {
    let last = series
        .iter()
        .flat_map(|series| &series.samples)
        .copied()
        .fold(0.1, f64::max)
        * 1.05;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds")
        .y_desc("% of samples")
        .draw()?;
    for (series, colour) in series.iter().zip(COLOURS) {
        let style = colour.stroke_width(2);
        let curve = LineSeries::new(steps(&series.samples, last), style);
        chart
            .draw_series(curve)?
            .label(series.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The corners of the empirical distribution function, in percent.
fn steps(samples: &[f64], last: f64) -> Vec<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "numbers of samples are small")]
    let share = |count: usize| 100.0 * count as f64 / sorted.len() as f64;
    let mut corners = vec![(0.0, 0.0)];
    for (index, seconds) in sorted.iter().enumerate() {
        corners.push((*seconds, share(index)));
        corners.push((*seconds, share(index + 1)));
    }
    corners.push((last, 100.0));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_is_a_step() {
        assert_eq!(
            steps(&[3.0, 1.0], 4.0),
            [
                (0.0, 0.0),
                (1.0, 0.0),
                (1.0, 50.0),
                (3.0, 50.0),
                (3.0, 100.0),
                (4.0, 100.0)
            ]
        );
    }
}
