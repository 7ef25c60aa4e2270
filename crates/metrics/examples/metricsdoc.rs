//! Prints `docs/metrics.md` for `cargo xtask codegen`: the tables come from the catalogue, the text
//! between them from `metricsdoc.md` in this directory.

#![forbid(unsafe_code)]

use std::fmt::Write;

use metrics::{Metric, catalogue};

const TEMPLATE: &str = include_str!("metricsdoc.md");
/// Prefix of the template's lines that are replaced.
const MARK: &str = "@@ ";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut document = String::new();
    for line in TEMPLATE.lines() {
        match line.strip_prefix(MARK) {
            None => writeln!(document, "{line}")?,
            Some("common") => table(&mut document, catalogue::COMMON)?,
            Some("operator") => table(&mut document, catalogue::OPERATOR)?,
            Some("agent") => table(&mut document, catalogue::AGENT)?,
            Some(other) => return Err(format!("the template names an unknown table {other}").into()),
        }
    }
    print!("{document}");
    Ok(())
}

fn table(document: &mut String, metrics: &[Metric]) -> std::fmt::Result {
    writeln!(document, "| metric | type | meaning | labels |")?;
    writeln!(document, "|---|---|---|---|")?;
    for metric in metrics {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|(name, values)| format!("`{name}`: {values}"))
            .collect();
        writeln!(
            document,
            "| `{}` | {} | {} | {} |",
            metric.exported_name(),
            metric.kind.as_str(),
            metric.help.trim(),
            labels.join("<br>")
        )?;
    }
    Ok(())
}
