//! Values over time.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Error, Query, answered, labels, refusal};

/// A range of time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The begin.
    pub begin: f64,
    /// The end.
    pub end: f64,
    /// Seconds between two values.
    pub step: f64,
}

/// A series and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 and the value, which may be no number.
    pub points: Vec<(f64, f64)>,
}

/// The series in Prometheus's response to a request for [`Query::range_path`].
pub fn series(response: &str) -> Result<Vec<Series>, Error> {
    let response = answered(response)?;
    let refused = || refusal(&response);
    let result = response["data"]["result"].as_array().ok_or_else(refused)?;
    let one = |series: &Value| {
        let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_str()?.parse().ok()?));
        let points: Option<Vec<_>> = series["values"].as_array()?.iter().map(point).collect();
        Some(Series {
            labels: labels(series)?,
            points: points?,
        })
    };
    result
        .iter()
        .map(|series| one(series).ok_or_else(refused))
        .collect()
}

// === impl Query ===

impl Query {
    /// Path of a request for the series in a range of time, with rates over a range such as `1m`.
    pub fn range_path(&self, rates: &str, range: Range) -> String {
        let Range { begin, end, step } = range;
        let query = self.encoded(rates);
        format!("/api/v1/query_range?query={query}&start={begin}&end={end}&step={step}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_over_time_are_read_and_may_be_no_numbers() {
        let response = r#"{"status": "success", "data": {"resultType": "matrix", "result": [
            {"metric": {"verb": "get"}, "values": [[1700000000, "0.5"], [1700000001.5, "NaN"]]}]}}"#;
        let all = series(response).unwrap();
        assert_eq!(all[0].labels["verb"], "get");
        assert_eq!(all[0].points[0], (1_700_000_000.0, 0.5));
        assert!(all[0].points[1].1.is_nan());
        let refused = r#"{"status": "error", "error": "parse error"}"#;
        assert!(series(refused).is_err());
        let instant = r#"{"data": {"result": [{"metric": {}, "value": [1, "2"]}]}}"#;
        assert!(series(instant).is_err(), "the answer to another request");
    }

    #[test]
    fn a_request_has_its_range() {
        let query = Query {
            panel: String::new(),
            unit: String::new(),
            legend: String::new(),
            expression: "a".to_owned(),
        };
        let range = Range {
            begin: 10.5,
            end: 20.0,
            step: 1.0,
        };
        let path = query.range_path("30s", range);
        assert_eq!(path, "/api/v1/query_range?query=%61&start=10.5&end=20&step=1");
    }
}
