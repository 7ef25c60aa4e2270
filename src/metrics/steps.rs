//! How long starts and stops take, by step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use metrics::{Metrics, catalogue};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use stoppablecontainer_api::{StartSteps, StoppableContainerInstanceStatus};

/// Upper bounds in seconds. The status has whole seconds, and a first start may pull a large image.
const BUCKETS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0, 1800.0];

/// Starts and stops that ended.
#[derive(Clone, Debug)]
pub struct StepMetrics {
    starts: Family<OfStart, Histogram, fn() -> Histogram>,
    stops: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStart {
    first: &'static str,
    step: &'static str,
}

// === impl StepMetrics ===

impl StepMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let steps = Self::default();
        metrics.register(&catalogue::START_STEP_SECONDS, steps.starts.clone());
        metrics.register(&catalogue::STOP_SECONDS, steps.stops.clone());
        steps
    }

    /// Observes what ended between two statuses that were both written, so that each start and each
    /// stop counts once.
    pub(crate) fn observe(
        &self,
        before: &StoppableContainerInstanceStatus,
        after: &StoppableContainerInstanceStatus,
    ) {
        let was_ready = |start: &StartSteps| start.ready_at.is_some();
        if before.last_start != after.last_start
            && let Some(start) = after.last_start.as_ref().filter(|start| was_ready(start))
            && !before
                .last_start
                .as_ref()
                .is_some_and(|old| was_ready(old) && old.requested_at == start.requested_at)
        {
            let first = if before.never_started { "true" } else { "false" };
            self.started(start, first);
        }
        let gone = |status: &StoppableContainerInstanceStatus| {
            let stop = status.last_stop.clone()?;
            Some((stop.requested_at?, stop.consumer_gone_at?))
        };
        if let Some((requested, end)) = gone(after)
            && gone(before).is_none_or(|(earlier, _)| earlier != requested)
        {
            self.stops.observe(seconds(&requested, &end));
        }
    }

    fn started(&self, start: &StartSteps, first: &'static str) {
        let Some(requested) = &start.requested_at else {
            return;
        };
        let steps = [
            ("scheduled", &start.scheduled_at),
            ("provider_ready", &start.provider_ready_at),
            ("filesystem_ready", &start.filesystem_ready_at),
            ("consumer_created", &start.consumer_created_at),
            ("ready", &start.ready_at),
        ];
        for (step, at) in steps {
            if let Some(at) = at {
                let of = OfStart { first, step };
                self.starts.get_or_create(&of).observe(seconds(requested, at));
            }
        }
    }
}

impl Default for StepMetrics {
    fn default() -> Self {
        Self {
            starts: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            stops: Histogram::new(BUCKETS),
        }
    }
}

/// Time between two moments of different clocks: 0 if the second seems to be earlier.
fn seconds(from: &Time, to: &Time) -> f64 {
    to.0.duration_since(from.0).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(status: Value) -> StoppableContainerInstanceStatus {
        serde_json::from_value(status).unwrap()
    }

    fn time(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}Z")
    }

    fn counts(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.contains("_sum") || line.contains("_count"));
        lines
            .map(|line| line.trim_start_matches("stoppablecontainer_").to_owned())
            .collect()
    }

    #[test]
    fn a_start_counts_once_when_its_last_step_is_written() {
        let metrics = Metrics::new("0");
        let steps = StepMetrics::new(&metrics);
        let begun = status(json!({ "neverStarted": true, "lastStart": { "requestedAt": time(1) } }));
        let ready = json!({ "requestedAt": time(1), "consumerCreatedAt": time(3), "readyAt": time(5) });
        let ended = status(json!({ "lastStart": ready }));
        steps.observe(&status(json!({})), &begun);
        steps.observe(&begun, &ended);
        steps.observe(&ended, &ended);
        let lines = counts(&metrics);
        for line in [
            "start_step_seconds_sum{first=\"true\",step=\"consumer_created\"} 2.0",
            "start_step_seconds_sum{first=\"true\",step=\"ready\"} 4.0",
            "start_step_seconds_count{first=\"true\",step=\"ready\"} 1",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}\n{lines:?}");
        }
        let again = json!({ "requestedAt": time(20), "scheduledAt": time(19), "readyAt": time(21) });
        steps.observe(&ended, &status(json!({ "lastStart": again })));
        let lines = counts(&metrics);
        let line = "start_step_seconds_sum{first=\"false\",step=\"scheduled\"} 0.0";
        assert!(lines.iter().any(|found| found == line), "{line}\n{lines:?}");
    }

    #[test]
    fn a_stop_counts_once_when_the_pod_is_gone() {
        let metrics = Metrics::new("0");
        let steps = StepMetrics::new(&metrics);
        let begun = status(json!({ "lastStop": { "requestedAt": time(1) } }));
        let ended = status(json!({ "lastStop": { "requestedAt": time(1), "consumerGoneAt": time(4) } }));
        steps.observe(&status(json!({})), &begun);
        steps.observe(&begun, &ended);
        steps.observe(&ended, &ended);
        assert_eq!(counts(&metrics), ["stop_seconds_sum 3.0", "stop_seconds_count 1"]);
    }
}
