use dashboard::Grid;

use super::*;

const RANGE: Range = Range {
    begin: 1_700_000_000.0,
    end: 1_700_000_060.0,
    step: 1.0,
};

/// What Prometheus answered to the query of a panel, shortened: a series that is complete, one that
/// begins later and is no number at times, and one that is never a number.
const RECORDED: &str = r#"{"status": "success", "data": {"resultType": "matrix", "result": [
    {"metric": {"verb": "get", "resource": "pods"},
     "values": [[1700000000, "0.5"], [1700000001, "1.5"], [1700000002, "2"]]},
    {"metric": {"verb": "<list>", "resource": "pods"},
     "values": [[1700000030, "NaN"], [1700000031, "4"], [1700000032, "NaN"], [1700000040, "1"], [1700000041, "3"]]},
    {"metric": {"verb": "none"}, "values": [[1700000000, "NaN"], [1700000001, "+Inf"]]}]}}"#;

fn panel(kind: Kind, title: &str, x: u32, y: u32) -> Panel {
    Panel {
        kind,
        title: title.to_owned(),
        grid: Grid {
            x,
            y,
            width: if kind == Kind::Row { 24 } else { 12 },
            height: if kind == Kind::Row { 1 } else { 8 },
        },
        queries: vec![Query {
            panel: title.to_owned(),
            unit: "ops".to_owned(),
            legend: "{{verb}} {{resource}}".to_owned(),
            expression: String::new(),
        }],
    }
}

#[test]
fn every_panel_is_in_its_place_with_its_title_values_and_legend() {
    let panels = [
        panel(Kind::Row, "Controller", 0, 0),
        panel(Kind::Series, "Calls", 0, 1),
        panel(Kind::Stat, "Now", 12, 1),
        panel(Kind::Series, "Empty", 0, 9),
        panel(Kind::Stat, "No stat", 12, 9),
    ];
    let recorded = || vec![dashboard::series(RECORDED).unwrap()];
    let filled: Vec<Filled<'_>> = vec![
        (&panels[0], vec![]),
        (&panels[1], recorded()),
        (&panels[2], vec![recorded()[0][..1].to_vec()]),
        (&panels[3], vec![vec![]]),
        (&panels[4], vec![]),
    ];
    let svg = draw(&filled, RANGE).unwrap();
    assert!(
        svg.starts_with("<svg width=\"1224\" height=\"624\""),
        "{}",
        &svg[..100]
    );
    for words in [
        "Controller",
        "Calls",
        "Now",
        "Empty",
        "No stat",
        "get pods",
        "&lt;list&gt; pods",
        "Grafana draws it",
    ] {
        assert_eq!(svg.matches(words).count(), 1, "{words}:\n{svg}");
    }
    assert_eq!(svg.matches(NO_DATA).count(), 2, "{svg}");
    assert_eq!(
        svg.matches("2/s").count(),
        2,
        "a value and a label of an axis:\n{svg}"
    );
    assert_eq!(
        svg.matches("<polyline").count() - axes(&svg),
        2,
        "two parts have a line:\n{svg}"
    );
    assert_eq!(
        svg.matches("<circle").count(),
        1,
        "a part of one value is a point:\n{svg}"
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

/// Lines of axes, which are as thin as their frame.
fn axes(svg: &str) -> usize {
    let polylines = svg.lines().filter(|line| line.contains("<polyline"));
    polylines
        .filter(|line| line.contains("stroke-width=\"1\""))
        .count()
}

#[test]
fn a_line_breaks_where_values_are_missing_or_no_numbers() {
    let points = [
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, f64::NAN),
        (3.0, f64::INFINITY),
        (4.0, 5.0),
        (9.0, 6.0),
    ];
    let parts = parts(&points, 1.0);
    assert_eq!(parts, [&points[..2], &points[4..5], &points[5..]]);
}

#[test]
fn the_lines_with_the_largest_last_values_come_first() {
    let queries = panel(Kind::Series, "", 0, 0).queries;
    let series = dashboard::series(RECORDED).unwrap();
    let names: Vec<_> = lines(&queries, &[series])
        .into_iter()
        .map(|line| line.name)
        .collect();
    assert_eq!(names, ["<list> pods", "get pods", "none"]);
}

#[test]
fn a_legend_counts_the_names_that_do_not_fit() {
    let line = |name: &str| Line {
        name: name.to_owned(),
        points: Vec::new(),
    };
    let many: Vec<_> = (0..20)
        .map(|number| line(&format!("series number {number}")))
        .collect();
    let rows = legend(&many, 300);
    assert_eq!(rows.len(), LEGEND_LINES);
    let entries: Vec<_> = rows.iter().flatten().collect();
    let shown = entries.iter().filter(|entry| entry.colour.is_some()).count();
    let last = entries.last().unwrap();
    assert_eq!(
        (last.text.as_str(), last.colour),
        (format!("{} more", 20 - shown).as_str(), None)
    );
    for entry in entries {
        let letters = u32::try_from(entry.text.chars().count()).unwrap();
        assert!(entry.x + SIGN + letters * LETTER_WIDTH <= 300, "{entry:?}");
    }
    let long = legend(&[line(&"x".repeat(100))], 300);
    assert!(long[0][0].text.ends_with("x…"), "{long:?}");
}

#[test]
fn times_are_those_of_a_clock() {
    assert_eq!(
        [0.0, 59.9, 65.0, 600.0].map(minutes),
        ["0:00", "0:59", "1:05", "10:00"]
    );
}

#[test]
fn the_charts_dashboard_is_drawn_as_a_whole() {
    let dashboard = include_str!("../../../../charts/stoppablecontainer/monitoring/dashboard.json");
    let panels = dashboard::panels(dashboard).unwrap();
    let wave = |number: u32| {
        let values = (0..60).map(|second| {
            let value = f64::from(number) + (f64::from(second) / 9.0).sin();
            (RANGE.begin + f64::from(second), value)
        });
        Series {
            labels: [("kind", "StoppableContainer"), ("name", "dev")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            points: values.collect(),
        }
    };
    let filled: Vec<Filled<'_>> = panels
        .iter()
        .map(|panel| {
            (
                panel,
                panel.queries.iter().map(|_| (1..5).map(wave).collect()).collect(),
            )
        })
        .collect();
    let svg = draw(&filled, RANGE).unwrap();
    for panel in &panels {
        assert!(svg.contains(&format!("\n{}\n", panel.title)), "{}", panel.title);
    }
    assert!(!svg.contains(NO_DATA), "{svg}");
}
