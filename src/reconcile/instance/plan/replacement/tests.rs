//! When a provider is replaced: the first one and later ones, with and without an edit, one case
//! per state.

// Tables read better without borrows.
#![allow(clippy::needless_pass_by_value)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::reconcile::instance::fixtures::{changed, observed, terminating};
use crate::reconcile::instance::plan::{Action, plan};
use crate::reconcile::instance::status::status;
use crate::reconcile::pods::fixtures::{instance, pod, prepared, up};
use crate::reconcile::pods::{OptOuts, Role};

fn claims() -> Value {
    json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }] })
}

fn anti_affinity() -> Value {
    json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } },
    ] } } })
}

/// Prepared on its first provider, with this in its template's pod, and no consumer.
fn first(spec: &Value, change: Value) -> Observed {
    let template = |mut object: Value| {
        json_patch::merge(&mut object, &json!({ "spec": { "template": { "spec": spec } } }));
        object
    };
    let provider = pod(&instance(template(json!({}))), Role::Provider, up());
    let mut now = json!({ "status": prepared() });
    json_patch::merge(&mut now, &change);
    Observed {
        provider: Slot::Ours(provider),
        ..observed(instance(template(now)))
    }
}

/// The same on its second.
fn later(spec: &Value, change: Value) -> Observed {
    let first = first(spec, change);
    Observed {
        provider: Slot::Ours(pod(&first.instance, Role::Provider, up())),
        ..first
    }
}

fn with_consumer(observed: Observed, status: Value) -> Observed {
    let consumer = Slot::Ours(pod(&observed.instance, Role::Consumer, status));
    Observed { consumer, ..observed }
}

fn edited(observed: Observed) -> Observed {
    let mut instance = (*observed.instance).clone();
    let mut provider = serde_json::to_value(&instance.spec.provider).unwrap();
    provider["tolerations"] = json!([{ "operator": "Exists" }]);
    instance.spec.provider = serde_json::from_value(provider).unwrap();
    Observed {
        instance: Arc::new(instance),
        ..observed
    }
}

fn stopped() -> Value {
    json!({ "spec": { "running": false } })
}

fn words(observed: &Observed) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Create(role, _) => format!("create {role}"),
        Action::Delete(role, ..) => format!("delete {role}"),
        other => format!("{other:?}"),
    };
    plan(observed, &OptOuts::default()).iter().map(word).collect()
}

/// A stopped object does not hold claims or repel pods; a running one is not touched, and the first
/// start does not wait.
#[test]
fn i2_the_first_provider_goes_at_the_first_stop_if_it_holds_or_repels() {
    for spec in [claims(), anti_affinity()] {
        assert_eq!(words(&first(&spec, stopped())), ["delete provider"], "{spec}");
        assert_eq!(words(&first(&spec, json!({}))), ["create consumer"], "{spec}");
        let running = with_consumer(first(&spec, json!({})), up());
        assert_eq!(words(&running), [""; 0], "{spec}");
        let stopping = with_consumer(first(&spec, stopped()), up());
        assert_eq!(words(&stopping), ["delete consumer"], "{spec}");
        let stopping = Observed {
            consumer: terminating(stopping.consumer.pod().unwrap()),
            ..stopping
        };
        assert_eq!(words(&stopping), [""; 0], "{spec}");
        assert_eq!(words(&later(&spec, stopped())), [""; 0], "{spec}");
    }
    assert_eq!(
        words(&first(&json!({}), stopped())),
        [""; 0],
        "it is as good as its successor"
    );
}

#[test]
fn the_first_provider_stays_until_it_has_placed_the_data() {
    let unplaced = |filesystem: Value| {
        let change = json!({ "spec": { "running": false }, "status": { "filesystem": filesystem } });
        words(&first(&claims(), change))
    };
    assert_eq!(unplaced(Value::Null), [""; 0]);
    assert_eq!(unplaced(json!({ "state": "Preparing" })), [""; 0]);
    let lost = unplaced(json!({ "state": "Failed", "reason": "FilesystemLost" }));
    assert_eq!(
        lost,
        ["delete provider"],
        "a failed one holds no more than any other"
    );
}

/// The object is Stopped when it does not hold anything any more; until then it is not Ready for a
/// moment either.
#[test]
fn i12_a_stop_is_done_when_the_lasting_provider_is_there() {
    let now = || "2026-01-02T03:04:05Z".parse().unwrap();
    let before = status(&first(&claims(), stopped()), now());
    assert_eq!(before.phase.unwrap().as_str(), "Pending");
    assert_eq!(
        (
            before.conditions[0].status.as_str(),
            before.conditions[0].reason.as_str()
        ),
        ("False", "Starting")
    );
    let words = "pod web-provider will be replaced by one without volume claims and pod affinity";
    assert_eq!(before.conditions[1].message, words);
    let after = status(&later(&claims(), stopped()), now());
    assert_eq!(after.phase.unwrap().as_str(), "Stopped");
}

/// The scheduler keeps pods away that an existing pod's anti-affinity names. That may be the
/// object's own consumer, whenever it goes through the scheduler.
#[test]
fn h23_the_first_provider_does_not_keep_its_own_consumer_away() {
    let queues = json!({ "status": { "placement": "Scheduler" } });
    assert_eq!(
        words(&first(&anti_affinity(), queues.clone())),
        ["delete provider"]
    );
    assert_eq!(words(&first(&claims(), queues.clone())), ["create consumer"]);
    assert_eq!(words(&later(&anti_affinity(), queues)), ["create consumer"]);
    let pending = |made: Observed, reason: &str, gates: Value| {
        let status = json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": reason, "message": "m" },
        ] });
        let observed = with_consumer(made, status);
        let consumer = changed(observed.consumer.pod().unwrap(), |pod| {
            let spec = pod.spec.as_mut().unwrap();
            spec.node_name = None;
            spec.scheduling_gates = serde_json::from_value(gates).unwrap();
        });
        Observed { consumer, ..observed }
    };
    let own = || first(&anti_affinity(), json!({}));
    // The scheduler does not try the waiting one again when the provider goes, so that goes too.
    assert_eq!(
        words(&pending(own(), "Unschedulable", json!([]))),
        ["delete provider", "delete consumer"]
    );
    let gate = json!([{ "name": "example.org/gate" }]);
    assert_eq!(
        words(&pending(own(), "SchedulingGated", gate.clone())),
        ["delete provider"],
        "before it is let through"
    );
    let holds = || first(&claims(), json!({}));
    assert_eq!(words(&pending(holds(), "SchedulingGated", gate)), [""; 0]);
    assert_eq!(words(&pending(holds(), "Unschedulable", json!([]))), [""; 0]);
    let bound = with_consumer(first(&anti_affinity(), json!({})), json!({ "phase": "Pending" }));
    assert_eq!(words(&bound), [""; 0]);
}

#[test]
fn i2_an_edit_of_the_provider_takes_effect_when_nothing_runs() {
    let plain = json!({});
    assert_eq!(words(&edited(later(&plain, stopped()))), ["delete provider"]);
    assert_eq!(
        words(&edited(later(&plain, json!({})))),
        ["delete provider"],
        "before the next start"
    );
    assert_eq!(
        words(&edited(with_consumer(later(&plain, json!({})), up()))),
        [""; 0]
    );
    let ended = json!({ "phase": "Failed", "reason": "Evicted" });
    assert_eq!(
        words(&edited(with_consumer(later(&plain, json!({})), ended))),
        ["delete consumer"]
    );
    // A provider that never started holds nothing.
    let pulls = |observed: Observed| {
        let pending = changed(observed.provider.pod().unwrap(), |pod| {
            pod.status = serde_json::from_value(json!({ "phase": "Pending" })).unwrap();
        });
        Observed {
            provider: pending,
            ..observed
        }
    };
    assert_eq!(
        words(&edited(pulls(with_consumer(later(&plain, json!({})), up())))),
        ["delete provider"]
    );
}

/// A claim that was taken out of the template is let go of at the next start at the latest.
#[test]
fn i2_what_was_taken_out_of_the_template_is_not_held_after_the_next_start() {
    let held = first(&claims(), json!({}));
    let mut instance = (*held.instance).clone();
    let mut template = serde_json::to_value(&instance.spec.template).unwrap();
    template["spec"].as_object_mut().unwrap().remove("volumes");
    instance.spec.template = serde_json::from_value(template).unwrap();
    let taken_out = Observed {
        instance: Arc::new(instance),
        ..held
    };
    assert_eq!(words(&taken_out), ["delete provider"]);
    assert_eq!(words(&with_consumer(taken_out, up())), [""; 0]);
}

/// On a node that is not ready a new provider would not start.
#[test]
fn f28_nothing_is_replaced_on_a_node_that_is_away() {
    let silent = |observed| Observed {
        node_unreachable: Some("stopped posting".to_owned()),
        ..observed
    };
    let unready = |observed| Observed {
        node_not_ready: Some("no network".to_owned()),
        ..observed
    };
    for due in [edited(later(&json!({}), stopped())), first(&claims(), stopped())] {
        assert_eq!(words(&silent(due.clone())), [""; 0]);
        assert_eq!(words(&unready(due)), [""; 0]);
    }
}

/// Facts that the controller finds are not edits.
#[test]
fn what_is_written_down_replaces_no_provider() {
    let change = json!({ "spec": { "running": false }, "status": {
        "image": { "name": "nginx:1.25", "digest": "docker.io/library/nginx@sha256:1" }, "placement": "Scheduler",
    } });
    assert_eq!(words(&later(&json!({}), change.clone())), [""; 0]);
    assert_eq!(words(&first(&json!({}), change)), [""; 0]);
}
