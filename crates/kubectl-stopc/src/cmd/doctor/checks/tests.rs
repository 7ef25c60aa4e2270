use serde_json::{Value, json};

use super::super::facts::{PERMISSIONS, Read, Webhook};
use super::*;
use crate::view::fixtures::value;

fn list<T: serde::de::DeserializeOwned>(values: &[Value]) -> Vec<T> {
    serde_json::from_value(json!(values)).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A certificate that ends on this day.
fn certificate(year: i32, month: u8, day: u8) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.not_after = rcgen::date_time_ymd(year, month, day);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn cannot_read<T>() -> Read<T> {
    Err("cannot read it: forbidden".to_owned())
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/version": version::client() })
}

/// A cluster where everything works.
fn healthy() -> Facts {
    let bundle = certificate(2027, 1, 1).into_bytes();
    let webhook = |kind| Webhook {
        kind,
        bundles: vec![bundle.clone()],
    };
    let status = json!({
        "desiredNumberScheduled": 1, "numberReady": 1, "currentNumberScheduled": 1, "numberMisscheduled": 0,
    });
    Facts {
        namespace: "team".to_owned(),
        kubernetes: Ok(("1".to_owned(), "34+".to_owned())),
        served: Ok(vec!["v1alpha1".to_owned()]),
        webhooks: Ok(vec![webhook("mutating"), webhook("validating")]),
        dry_run: Ok(()),
        controllers: Ok(list(&[json!({
            "metadata": { "name": "ctl", "namespace": "sys", "labels": labels() },
            "spec": { "replicas": 2, "selector": {}, "template": {} },
            "status": { "readyReplicas": 2 },
        })])),
        agents: Ok(list(&[json!({
            "metadata": { "name": "agent", "namespace": "sys", "labels": labels() }, "status": status,
        })])),
        nodes: Ok(list(&[json!({ "metadata": { "name": "node1" } })])),
        drivers: Ok(list(&[json!({
            "metadata": { "name": "node1" },
            "spec": { "drivers": [{ "name": CSI_DRIVER, "nodeID": "node1" }] },
        })])),
        permissions: PERMISSIONS
            .iter()
            .map(|permission| (*permission, Ok(true)))
            .collect(),
        containers: Ok(list(&[value(true, "Running", &[])])),
        instances: Ok(Vec::new()),
        orphans: Ok(Vec::new()),
    }
}

/// The finding of a check in a cluster where something is different.
fn found(check: &str, change: impl FnOnce(&mut Facts)) -> (Level, String) {
    let mut facts = healthy();
    change(&mut facts);
    let mut findings = all(&facts, now());
    findings.retain(|finding| finding.check == check);
    assert_eq!(findings.len(), 1, "{check}");
    let finding = findings.remove(0);
    (
        finding.level,
        format!("{} {}", finding.text, finding.next.unwrap_or_default()),
    )
}

#[test]
fn a_healthy_cluster_has_nothing_to_report() {
    for finding in all(&healthy(), now()) {
        assert_eq!(finding.level, Level::Ok, "{finding:?}");
    }
    let text = super::super::text(&all(&healthy(), now()));
    let text = anstream::adapter::strip_str(&text).to_string();
    assert!(
        text.starts_with(
            "RESULT   CHECK                 DETAILS\nok       Kubernetes            release 1.34\n"
        ),
        "{text}"
    );
}

#[test]
fn what_does_not_work_is_named_with_a_way_out() {
    use Level::{Failed, Warning};
    let is = |check: &str, level: Level, words: &str, change: &dyn Fn(&mut Facts)| {
        let (found, text) = found(check, change);
        assert!(
            found == level && text.contains(words),
            "{check}: {found:?} {text}"
        );
    };
    is("Kubernetes", Failed, "1.32 or newer", &|f| {
        f.kubernetes = Ok(("1".into(), "31".into()));
    });
    is("CRDs", Failed, "Helm", &|f| f.served = Ok(Vec::new()));
    is("CRDs", Failed, "v2 is served", &|f| {
        f.served = Ok(vec!["v2".into()]);
    });
    is("controller", Failed, "Helm", &|f| f.controllers = Ok(Vec::new()));
    is("controller", Failed, "0 of 2 replicas", &|f| {
        f.controllers.as_mut().unwrap()[0].status = None;
    });
    is("webhook", Failed, "network", &|f| {
        f.dry_run = Err("failed calling webhook: timeout".into());
    });
    is("webhook", Level::Ok, "answers", &|f| {
        f.dry_run = Err("admission webhook denied the request: no".into());
    });
    is("webhook configuration", Failed, "validating is missing", &|f| {
        f.webhooks.as_mut().unwrap().pop();
    });
    is("webhook certificate", Failed, "no caBundle", &|f| {
        f.webhooks.as_mut().unwrap()[0].bundles[0].clear();
    });
    is("webhook certificate", Failed, "expired on 2025-12-01", &|f| {
        f.webhooks.as_mut().unwrap()[0].bundles[0] = certificate(2025, 12, 1).into_bytes();
    });
    is("webhook certificate", Warning, "expires in 2d", &|f| {
        f.webhooks.as_mut().unwrap()[1].bundles[0] = certificate(2026, 1, 3).into_bytes();
    });
    is("node agents", Failed, "0 of 0", &|f| {
        f.agents.as_mut().unwrap()[0].status = None;
    });
    is("agent per node", Failed, "not registered on node1", &|f| {
        f.drivers = Ok(Vec::new());
    });
    is("agent per node", Warning, "not registered on node2", &|f| {
        let node = serde_json::from_value(json!({ "metadata": { "name": "node2" } }));
        f.nodes.as_mut().unwrap().push(node.unwrap());
    });
    is(
        "your permissions",
        Warning,
        "delete stoppablecontainers (for delete)",
        &|f| {
            f.permissions[4].1 = Ok(false);
        },
    );
    is("versions", Warning, "the cluster has 9.9.9", &|f| {
        let labels = f.controllers.as_mut().unwrap()[0].labels_mut();
        labels.insert("app.kubernetes.io/version".into(), "9.9.9".into());
        f.agents.as_mut().unwrap()[0].labels_mut().clear();
    });
    is("containers", Warning, "1 of 1 failed: team/web", &|f| {
        f.containers = Ok(list(&[value(true, "Failed", &[])]));
    });
    is(
        "orphans",
        Warning,
        "without a StoppableContainer: team/left",
        &|f| {
            f.instances = Ok(list(&[json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "metadata": { "name": "left", "namespace": "team" },
                "spec": { "stoppableContainerName": "left", "template": {} },
            })]));
        },
    );
    is("orphans", Warning, "data without an object on node1", &|f| {
        f.orphans = Ok(list(&[json!({
            "metadata": { "name": "e" }, "eventTime": null, "regarding": { "kind": "Node", "name": "node1" },
        })]));
    });
}

#[test]
fn what_may_not_be_read_is_unknown_and_no_failure() {
    let mut facts = healthy();
    facts.served = cannot_read();
    facts.webhooks = cannot_read();
    facts.dry_run = cannot_read();
    facts.controllers = cannot_read();
    facts.agents = cannot_read();
    facts.nodes = cannot_read();
    facts.containers = cannot_read();
    facts.instances = cannot_read();
    let levels: Vec<_> = all(&facts, now())
        .into_iter()
        .map(|finding| finding.level)
        .collect();
    assert!(!levels.contains(&Level::Failed), "{levels:?}");
    assert_eq!(levels.iter().filter(|level| **level == Level::Unknown).count(), 9);
}
