/*!
The queries of the chart's Grafana dashboard, and what a Prometheus needs to answer them: its
configuration, the requests and the responses as text. Connections and processes belong to the
programs that use it: the demo, and the tests.
*/

#![forbid(unsafe_code)]

mod panel;
mod range;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thiserror::Error;

pub use panel::{Grid, Kind, Panel, panels};
pub use range::{Range, Series, series};

/// What Grafana replaces by a range that fits the interval of the scrapes.
const RATE_INTERVAL: &str = "$__rate_interval";

/// Why a text is not what it should be.
#[derive(Debug, Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("{what} is not JSON")]
    Json {
        /// What the text is.
        what: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The dashboard does not have a field.
    #[error("{at} of the dashboard does not have `{field}`")]
    Dashboard {
        /// The part of the dashboard.
        at: String,
        /// The field.
        field: &'static str,
    },
    /// Prometheus refused the query, or its response has another form.
    #[error("Prometheus did not answer the query: {0}")]
    Refused(String),
}

/// A query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Title of the panel.
    pub panel: String,
    /// Grafana's name of the unit, such as `s`, `bytes` or `percentunit`.
    pub unit: String,
    /// The template of the names of series: `{{phase}}`.
    pub legend: String,
    /// The query in PromQL, with Grafana's variables.
    pub expression: String,
}

/// A series and its value at present.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value, which may be no number.
    pub value: f64,
}

/// Whom a Prometheus scrapes.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Addresses (`HOST:PORT`) of the operator's replicas.
    pub operators: Vec<String>,
    /// Addresses of the node agents.
    pub agents: Vec<String>,
}

/// The queries of a dashboard, in the order of its panels.
pub fn queries(dashboard: &str) -> Result<Vec<Query>, Error> {
    let panels = panels(dashboard)?;
    Ok(panels.into_iter().flat_map(|panel| panel.queries).collect())
}

/// A Prometheus's configuration: it scrapes the programs of a release every second, and evaluates
/// the rules of a file. The agents require the token of a reader, which is in another file.
pub fn configuration(targets: &Targets, rules: &str, token: &str) -> String {
    let configuration = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
        "rule_files": [rules],
        "scrape_configs": [
            { "job_name": "operator", "static_configs": [{ "targets": targets.operators }] },
            {
                "job_name": "node-agent", "scheme": "https", "static_configs": [{ "targets": targets.agents }],
                "tls_config": { "insecure_skip_verify": true },
                "authorization": { "credentials_file": token },
            },
        ],
    });
    // JSON is YAML.
    configuration.to_string()
}

/// The series in Prometheus's response to a request for [`Query::path`].
pub fn samples(response: &str) -> Result<Vec<Sample>, Error> {
    let response = answered(response)?;
    let refused = || refusal(&response);
    let result = response["data"]["result"].as_array().ok_or_else(refused)?;
    let sample = |series: &Value| {
        Some(Sample {
            labels: labels(series)?,
            value: series["value"][1].as_str()?.parse().ok()?,
        })
    };
    result
        .iter()
        .map(|series| sample(series).ok_or_else(refused))
        .collect()
}

fn answered(response: &str) -> Result<Value, Error> {
    serde_json::from_str(response).map_err(|source| Error::Json {
        what: "the response of Prometheus",
        source,
    })
}

/// The error that a response has instead of series.
fn refusal(response: &Value) -> Error {
    Error::Refused(response["error"].as_str().unwrap_or("unknown form").to_owned())
}

/// The labels of a series in a response.
fn labels(series: &Value) -> Option<BTreeMap<String, String>> {
    let labels = series["metric"].as_object()?.iter();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    Some(labels.collect())
}

// === impl Query ===

impl Query {
    /// Path of a request for the series at present, with rates over a range such as `1m`.
    pub fn path(&self, range: &str) -> String {
        format!("/api/v1/query?query={}", self.encoded(range))
    }

    fn encoded(&self, range: &str) -> String {
        let expression = self.expression.replace(RATE_INTERVAL, range);
        expression
            .bytes()
            .fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
    }

    /// The name of a series, as Grafana makes it. Labels that the series does not have are empty.
    pub fn name(&self, sample: &Sample) -> String {
        self.name_of(&sample.labels)
    }

    /// The name of a series with these labels.
    pub fn name_of(&self, labels: &BTreeMap<String, String>) -> String {
        let mut name = String::new();
        let mut rest = self.legend.as_str();
        while let Some((text, label, after)) = placeholder(rest) {
            name.push_str(text);
            name.push_str(labels.get(label).map_or("", String::as_str));
            rest = after;
        }
        name.push_str(rest);
        name.trim().to_owned()
    }
}

/// The text before the first `{{LABEL}}`, the label, and the text after it.
fn placeholder(template: &str) -> Option<(&str, &str, &str)> {
    let (text, rest) = template.split_once("{{")?;
    let (label, after) = rest.split_once("}}")?;
    Some((text, label.trim(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHBOARD: &str = include_str!("../../../charts/stoppablecontainer/monitoring/dashboard.json");

    #[test]
    fn the_charts_dashboard_has_queries_with_units_and_names() {
        let queries = queries(DASHBOARD).unwrap();
        assert!(queries.len() > 20, "{}", queries.len());
        for query in &queries {
            assert!(!query.panel.is_empty() && !query.unit.is_empty(), "{query:?}");
            assert!(!query.legend.is_empty(), "{query:?}");
            assert!(
                !query.path("1m").contains("%24"),
                "an unknown variable in {query:?}"
            );
        }
    }

    #[test]
    fn a_panel_without_query_is_named() {
        let error = queries(r#"{"panels": [{"title": "Queue", "targets": [{}]}]}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the panel \"Queue\" of the dashboard does not have `expr`"
        );
        assert!(queries("{").is_err());
        assert!(queries("{}").is_err());
    }

    #[test]
    fn series_are_named_by_their_labels() {
        let query = Query {
            panel: "Calls".to_owned(),
            unit: "ops".to_owned(),
            legend: "{{verb}} {{ resource }}: all".to_owned(),
            expression: "sum(rate(calls[$__rate_interval])) > 1".to_owned(),
        };
        let response = r#"{"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {"verb": "get", "resource": "pods"}, "value": [1700000000.1, "0.5"]},
            {"metric": {}, "value": [1700000000.1, "NaN"]}]}}"#;
        let samples = samples(response).unwrap();
        assert_eq!(query.name(&samples[0]), "get pods: all");
        assert_eq!(query.name(&samples[1]), ": all");
        assert_eq!(samples[0].value.to_string(), "0.5");
        assert!(samples[1].value.is_nan());
        assert!(query.path("1m").ends_with("%5B%31%6D%5D%29%29%20%3E%20%31"));
    }

    #[test]
    fn a_refusal_has_the_reason() {
        let response = r#"{"status": "error", "errorType": "bad_data", "error": "parse error"}"#;
        let error = samples(response).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Prometheus did not answer the query: parse error"
        );
    }

    #[test]
    fn the_agents_are_scraped_with_the_token() {
        let targets = Targets {
            operators: vec!["10.0.0.1:8080".to_owned()],
            agents: vec!["10.0.0.2:8443".to_owned()],
        };
        let made: Value = serde_json::from_str(&configuration(&targets, "alerts.yaml", "token")).unwrap();
        assert_eq!(made["rule_files"][0], "alerts.yaml");
        let [operator, agent] = [0, 1].map(|job| &made["scrape_configs"][job]);
        assert_eq!(operator["static_configs"][0]["targets"][0], "10.0.0.1:8080");
        assert_eq!(agent["static_configs"][0]["targets"][0], "10.0.0.2:8443");
        assert_eq!(agent["authorization"]["credentials_file"], "token");
    }
}
