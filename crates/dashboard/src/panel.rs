//! The panels of a dashboard, with their places in its grid.

use serde_json::Value;

use crate::{Error, Query};

/// A panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panel {
    /// What it shows.
    pub kind: Kind,
    /// The title.
    pub title: String,
    /// Where it is.
    pub grid: Grid,
    /// Its queries.
    pub queries: Vec<Query>,
}

/// What a panel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The title of the panels below it.
    Row,
    /// The last values as text.
    Stat,
    /// Values over time, and all that is not known here.
    Series,
}

/// A place in the grid, which has 24 columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Columns to the left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Width in columns.
    pub width: u32,
    /// Height in rows.
    pub height: u32,
}

/// The panels of a dashboard in their order.
pub fn panels(dashboard: &str) -> Result<Vec<Panel>, Error> {
    let dashboard: Value = serde_json::from_str(dashboard).map_err(|source| Error::Json {
        what: "the dashboard",
        source,
    })?;
    let missing = || Error::Dashboard {
        at: "the top".to_owned(),
        field: "panels",
    };
    let panels = dashboard["panels"].as_array().ok_or_else(missing)?;
    panels.iter().map(panel).collect()
}

fn panel(panel: &Value) -> Result<Panel, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let title = text(&panel["title"]);
    let mut queries = Vec::new();
    for target in panel["targets"].as_array().into_iter().flatten() {
        let expression = target["expr"].as_str().ok_or_else(|| Error::Dashboard {
            at: format!("the panel {title:?}"),
            field: "expr",
        })?;
        queries.push(Query {
            panel: title.clone(),
            unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
            legend: text(&target["legendFormat"]),
            expression: expression.to_owned(),
        });
    }
    let place = |field: &str| {
        let number = panel["gridPos"][field].as_u64().unwrap_or_default();
        u32::try_from(number).unwrap_or_default()
    };
    Ok(Panel {
        kind: match panel["type"].as_str() {
            Some("row") => Kind::Row,
            Some("stat") => Kind::Stat,
            _ => Kind::Series,
        },
        title,
        grid: Grid {
            x: place("x"),
            y: place("y"),
            width: place("w"),
            height: place("h"),
        },
        queries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHBOARD: &str = include_str!("../../../charts/stoppablecontainer/monitoring/dashboard.json");

    #[test]
    fn the_charts_panels_have_places_that_do_not_overlap() {
        let panels = panels(DASHBOARD).unwrap();
        assert!(panels.iter().any(|panel| panel.kind == Kind::Stat));
        for (index, panel) in panels.iter().enumerate() {
            let Grid { x, y, width, height } = panel.grid;
            assert!(width > 0 && height > 0 && x + width <= 24, "{panel:?}");
            assert_eq!(panel.kind == Kind::Row, panel.queries.is_empty(), "{panel:?}");
            for other in &panels[..index] {
                let grid = other.grid;
                let beside = x >= grid.x + grid.width || grid.x >= x + width;
                let below = y >= grid.y + grid.height || grid.y >= y + height;
                assert!(beside || below, "{panel:?} {other:?}");
            }
        }
    }
}
