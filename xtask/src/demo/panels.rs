/*!
The dashboard as a table: each panel with the present values of its series.
*/

use std::fmt::Write;

use dashboard::{Query, Sample};

/// A query of a panel, and its series.
pub(super) type Panel<'a> = (&'a Query, Vec<Sample>);

/// A panel shows the largest of its series.
const SERIES: usize = 5;
const HEAD: [&str; 3] = ["panel", "series", "now"];

/// The table. Rates and quantiles are over this range.
pub(super) fn render(panels: &[Panel<'_>], range: &str) -> String {
    let mut rows = Vec::new();
    let mut last = "";
    for (query, series) in panels {
        let mut title = if query.panel == last {
            ""
        } else {
            query.panel.as_str()
        };
        last = &query.panel;
        for [name, value] in shown(query, series) {
            rows.push([title.to_owned(), name, value]);
            title = "";
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or_default()
    };
    let [panel, name, value] = [0, 1, 2].map(width);
    let mut text = String::new();
    let mut line = |row: [&str; 3]| {
        let _ = writeln!(
            text,
            "| {:<panel$} | {:<name$} | {:>value$} |",
            row[0], row[1], row[2]
        );
    };
    line(HEAD);
    line([&"-".repeat(panel), &"-".repeat(name), &"-".repeat(value)]);
    for row in &rows {
        line([&row[0], &row[1], &row[2]]);
    }
    let _ = writeln!(
        text,
        "Rates and quantiles (p50, p99) are over {range}; \"-\" is a quantile without an event in this time."
    );
    text
}

/// The names and values of the largest series.
fn shown(query: &Query, series: &[Sample]) -> Vec<[String; 2]> {
    if series.is_empty() {
        return vec![[String::new(), "no data".to_owned()]];
    }
    let mut sorted: Vec<_> = series
        .iter()
        .map(|sample| (sample.value, query.name(sample)))
        .collect();
    // The order of numbers, without a number last, and then that of names.
    sorted.sort_by(|(a, a_name), (b, b_name)| {
        let by_value = a.is_nan().cmp(&b.is_nan()).then(b.total_cmp(a));
        by_value.then_with(|| a_name.cmp(b_name))
    });
    let mut rows: Vec<_> = sorted
        .iter()
        .take(SERIES)
        .map(|(value, name)| [name.clone(), format(*value, &query.unit)])
        .collect();
    if sorted.len() > SERIES {
        rows.push([format!("{} more", sorted.len() - SERIES), String::new()]);
    }
    rows
}

/// A number with its unit, which has Grafana's name.
pub(super) fn format(value: f64, unit: &str) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match unit {
        "s" => seconds(value),
        "bytes" => bytes(value),
        "percentunit" => format!("{:.0} %", value * 100.0),
        "ops" => format!("{}/s", number(value)),
        _ => number(value),
    }
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn seconds(value: f64) -> String {
    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;
    match value {
        _ if value >= 2.0 * DAY => format!("{:.0} d", value / DAY),
        _ if value >= 2.0 * HOUR => format!("{:.1} h", value / HOUR),
        _ if value >= 1.0 => format!("{value:.1} s"),
        _ => format!("{} ms", number(value * 1000.0)),
    }
}

fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{} {unit}", number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(panel: &str, unit: &str) -> Query {
        Query {
            panel: panel.to_owned(),
            unit: unit.to_owned(),
            legend: "{{name}}".to_owned(),
            expression: String::new(),
        }
    }

    fn sample(name: &str, value: f64) -> Sample {
        Sample {
            labels: [("name".to_owned(), name.to_owned())].into(),
            value,
        }
    }

    #[test]
    fn a_panel_has_its_title_once_and_its_largest_series() {
        let [queue, free] = [query("Queue", "short"), query("Free", "percentunit")];
        let many = (0..7).map(|number| sample(&number.to_string(), f64::from(number)));
        let panels = [
            (&queue, many.collect()),
            (&queue, vec![sample("b", f64::NAN), sample("a", 1.0)]),
            (&free, vec![]),
        ];
        let text = render(&panels, "5m");
        let expected = "\
| panel | series |     now |
| ----- | ------ | ------- |
| Queue | 6      |       6 |
|       | 5      |       5 |
|       | 4      |       4 |
|       | 3      |       3 |
|       | 2      |       2 |
|       | 2 more |         |
|       | a      |       1 |
|       | b      |       - |
| Free  |        | no data |
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn values_have_their_units() {
        for (value, unit, text) in [
            (3.0, "short", "3"),
            (0.126, "ops", "0.13/s"),
            (0.421, "percentunit", "42 %"),
            (0.0123, "s", "12.3 ms"),
            (1.25, "s", "1.2 s"),
            (8.64e4, "s", "24.0 h"),
            (8.64e5, "s", "10 d"),
            (512.0, "bytes", "512 B"),
            (1_572_864.0, "bytes", "1.5 MiB"),
            (f64::NAN, "s", "-"),
        ] {
            assert_eq!(format(value, unit), text, "{value} {unit}");
        }
    }
}
