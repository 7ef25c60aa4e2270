//! What the operator measures. Names, labels and meaning are in the catalogue of the crate
//! `metrics`; the registry is passed down (nothing global).

mod admission;
mod controller;
mod steps;

pub use admission::AdmissionMetrics;
pub use controller::{ControllerMetrics, Kind, Leading, ObjectKey, Reconciled, Retries, Waiting};
pub use steps::StepMetrics;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use metrics::{Metrics, catalogue};
use webhook_certs::Resolver;

/// Serves the end of the validity of the certificate that the webhook serves.
pub fn register_certificate(metrics: &Metrics, resolver: Arc<Resolver>) {
    metrics.register_computed(&catalogue::CERTIFICATE_EXPIRY, move || {
        let leaf = resolver.leaf();
        let end = leaf.and_then(|leaf| leaf.validity.not_after.duration_since(UNIX_EPOCH).ok());
        let seconds = end.and_then(|end| i64::try_from(end.as_secs()).ok());
        seconds.map(|seconds| (Vec::new(), seconds)).into_iter().collect()
    });
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use stoppablecontainer_api::StoppableContainerInstanceStatus;
    use tokio::time::Instant;
    use webhook_certs::authority::Authority;
    use webhook_certs::leaf::Leaf;

    use super::*;

    /// Each metric of the operator moves, and is served as the documentation describes it.
    #[tokio::test]
    async fn the_catalogue_describes_what_is_served() {
        let metrics = Metrics::new("0");
        let admission = AdmissionMetrics::new(&metrics);
        let controller = ControllerMetrics::new(&metrics);
        let resolver = Arc::new(Resolver::new(SystemTime::now));
        register_certificate(&metrics, Arc::clone(&resolver));
        assert!(
            !metrics.encode().unwrap().contains("expiry"),
            "without a certificate"
        );

        let now = SystemTime::now();
        let day = Duration::from_hours(24);
        let authority = Authority::generate(now, day * 7).unwrap();
        let leaf = Leaf::issue(&authority, &["webhook".to_owned()], now, day).unwrap();
        let end = leaf
            .validity
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        resolver.set(leaf);
        admission.observe("/mutate", "denied", day);
        admission.denied("/mutate", "Invalid");
        let (objects, mut writer) = reflector::store();
        let object = json!({
            "metadata": { "namespace": "ns", "name": "a" },
            "spec": { "running": true, "template": { "spec": { "containers": [] } } },
        });
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
        let leading = controller.lead();
        leading.serve(objects);
        let waiting = controller.queue(Kind::StoppableContainerInstance);
        waiting.queued(("ns".to_owned(), "a".to_owned()));
        waiting.taken(&("ns".to_owned(), "a".to_owned()));
        controller.reconciled(
            Kind::StoppableContainerInstance,
            Reconciled::Conflict,
            Instant::now(),
        );
        controller.retries.failed("provider");
        let status = json!({
            "lastStart": { "requestedAt": "2026-01-01T00:00:00Z", "readyAt": "2026-01-01T00:00:02Z" },
            "lastStop": { "requestedAt": "2026-01-01T00:00:00Z", "consumerGoneAt": "2026-01-01T00:00:01Z" },
        });
        let status = serde_json::from_value(status).unwrap();
        controller
            .steps
            .observe(&StoppableContainerInstanceStatus::default(), &status);

        let text = metrics.encode().unwrap();
        let common = catalogue::COMMON
            .iter()
            .filter(|metric| metric.name == "build_info");
        let expected: Vec<_> = catalogue::OPERATOR.iter().chain(common).copied().collect();
        assert_eq!(
            metrics::differences(&text, &expected),
            Vec::<String>::new(),
            "{text}"
        );
        for sample in [
            format!("certificate_expiry_timestamp_seconds {end}"),
            "admission_denials_total{path=\"/mutate\",reason=\"Invalid\"} 1".to_owned(),
            "reconciliations_total{kind=\"StoppableContainerInstance\",result=\"conflict\"} 1".to_owned(),
            "reconciliation_seconds_count{kind=\"StoppableContainerInstance\"} 1".to_owned(),
            "retries_total{task=\"provider\"} 1".to_owned(),
            "containers{phase=\"\",reason=\"\"} 1".to_owned(),
        ] {
            assert!(
                text.contains(&format!("stoppablecontainer_{sample}\n")),
                "{sample}\n{text}"
            );
        }
    }
}
