//! When a provider is replaced, with and without an edit, one case per state.

// Tables read better without borrows.
#![allow(clippy::needless_pass_by_value)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::reconcile::instance::fixtures::{changed, observed};
use crate::reconcile::instance::plan::{Action, plan};
use crate::reconcile::pods::fixtures::{instance, pod, prepared, up};
use crate::reconcile::pods::{OptOuts, Role};

/// Prepared, with its provider up, and no consumer.
fn prepared_with(change: Value) -> Observed {
    let mut now = json!({ "status": prepared() });
    json_patch::merge(&mut now, &change);
    let instance = instance(now);
    Observed {
        provider: Slot::Ours(pod(&instance, Role::Provider, up())),
        ..observed(instance)
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

#[test]
fn i2_an_edit_of_the_provider_takes_effect_when_nothing_runs() {
    assert_eq!(words(&edited(prepared_with(stopped()))), ["delete provider"]);
    assert_eq!(
        words(&edited(prepared_with(json!({})))),
        ["delete provider"],
        "before the next start"
    );
    assert_eq!(
        words(&edited(with_consumer(prepared_with(json!({})), up()))),
        [""; 0]
    );
    let ended = json!({ "phase": "Failed", "reason": "Evicted" });
    assert_eq!(
        words(&edited(with_consumer(prepared_with(json!({})), ended))),
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
        words(&edited(pulls(with_consumer(prepared_with(json!({})), up())))),
        ["delete provider"]
    );
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
    let due = edited(prepared_with(stopped()));
    assert_eq!(words(&silent(due.clone())), [""; 0]);
    assert_eq!(words(&unready(due)), [""; 0]);
}

/// Facts that the controller finds are not edits.
#[test]
fn what_is_written_down_replaces_no_provider() {
    let change = json!({ "spec": { "running": false }, "status": {
        "image": { "name": "nginx:1.25", "digest": "docker.io/library/nginx@sha256:1" }, "placement": "Scheduler",
    } });
    assert_eq!(words(&prepared_with(change)), [""; 0]);
}
