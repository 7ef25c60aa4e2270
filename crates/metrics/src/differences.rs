//! Compares what a program serves with the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use crate::Metric;

/// Where the text of a scrape and a part of the catalogue differ, a sentence each: metrics that
/// only one of them has, and other types or labels. Metrics without values are not in the text, so
/// a test moves all of them first.
///
/// The label `le` belongs to histograms and is not compared.
pub fn differences(text: &str, catalogue: &[Metric]) -> Vec<String> {
    let mut found = Vec::new();
    let mut types = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            if let Some((name, kind)) = rest.split_once(' ') {
                types.insert(name, kind);
            }
        } else if !line.starts_with('#') {
            let (name, keys) = sample(line);
            let family = types.keys().rfind(|family| name.starts_with(*family));
            if let Some(family) = family {
                labels.entry(family).or_default().extend(keys);
            }
        }
    }
    for metric in catalogue {
        let exported = metric.exported_name();
        let family = exported.strip_suffix("_total").unwrap_or(&exported);
        let Some(kind) = types.remove(family) else {
            found.push(format!("{exported} is not served"));
            continue;
        };
        if kind != metric.kind.as_str() {
            found.push(format!("{exported} is served as {kind}"));
        }
        let expected: BTreeSet<_> = metric.labels.iter().map(|(name, _)| *name).collect();
        let served = labels.remove(family).unwrap_or_default();
        if served != expected {
            found.push(format!("{exported} is served with the labels {served:?}"));
        }
    }
    found.extend(
        types
            .into_keys()
            .map(|name| format!("{name} is not in the catalogue")),
    );
    found
}

/// Name and labels of a sample. No label value of ours contains a quote or a brace.
fn sample(line: &str) -> (&str, Vec<&str>) {
    let Some((name, rest)) = line.split_once('{') else {
        return (line.split(' ').next().unwrap_or_default(), Vec::new());
    };
    let inside = rest.split_once('}').map_or("", |(inside, _)| inside);
    let keys = inside.split("\",").filter_map(|pair| pair.split_once('='));
    (
        name,
        keys.map(|(key, _)| key).filter(|key| *key != "le").collect(),
    )
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::MetricType;

    use super::*;

    const CALLS: Metric = Metric {
        name: "calls",
        kind: MetricType::Counter,
        labels: &[("verb", ""), ("code", "")],
        help: "",
    };
    const SECONDS: Metric = Metric {
        name: "call_seconds",
        kind: MetricType::Histogram,
        labels: &[("verb", "")],
        help: "",
    };
    const TEXT: &str = "\
# HELP stoppablecontainer_calls Calls.
# TYPE stoppablecontainer_calls counter
stoppablecontainer_calls_total{verb=\"get, list\",code=\"200\"} 1
# HELP stoppablecontainer_call_seconds Times.
# TYPE stoppablecontainer_call_seconds histogram
stoppablecontainer_call_seconds_sum{verb=\"get\"} 0.5
stoppablecontainer_call_seconds_bucket{le=\"1.0\",verb=\"get\"} 1
# EOF
";

    #[test]
    fn equal_texts_do_not_differ() {
        assert_eq!(differences(TEXT, &[CALLS, SECONDS]), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_found() {
        assert_eq!(
            differences(TEXT, &[CALLS]),
            ["stoppablecontainer_call_seconds is not in the catalogue"]
        );
        let other = Metric {
            name: "others",
            ..CALLS
        };
        assert_eq!(
            differences(TEXT, &[CALLS, SECONDS, other]),
            ["stoppablecontainer_others_total is not served"]
        );
        let unlabelled = Metric {
            labels: &[],
            ..SECONDS
        };
        assert_eq!(
            differences(TEXT, &[CALLS, unlabelled]),
            ["stoppablecontainer_call_seconds is served with the labels {\"verb\"}"]
        );
        let gauge = Metric {
            kind: MetricType::Gauge,
            ..SECONDS
        };
        assert_eq!(
            differences(TEXT, &[CALLS, gauge]),
            ["stoppablecontainer_call_seconds is served as histogram"]
        );
    }
}
