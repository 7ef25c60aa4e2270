//! Pods with `hostUsers: false`, and clusters whose nodes cannot run them.

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, fact};

use crate::support::shell_template;

/// The row of the table of releases.
const TOPIC: &str = "a pod with `hostUsers: false`";
/// How the message about the field begins.
const FIELD: &str = "spec.template.spec.hostUsers: ";

/// Notes that such a pod runs, with this number of users.
pub(crate) fn note_own_users(number: &str) {
    fact(
        TOPIC,
        &format!("runs as in a plain pod, with {number} users of its own"),
    );
}

/// The template with a user namespace of its own.
pub(crate) fn with_own_users(mut template: Value) -> Value {
    template["spec"]["hostUsers"] = json!(false);
    template
}

/// Whether the container runtime of the nodes supports pods with `hostUsers: false`. Where it does
/// not, this checks that such an object is rejected with the reason, which is all that there is to
/// test.
pub(crate) async fn has_own_users(ns: &Namespace) -> Result<bool> {
    let nodes = Api::<Node>::all(ns.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let supports = |node: &Node| {
        let status = node.status.as_ref();
        let mut handlers = status.iter().flat_map(|s| s.runtime_handlers.iter().flatten());
        handlers.any(|handler| {
            let features = handler.features.as_ref();
            handler.name.as_deref().unwrap_or_default().is_empty()
                && features.is_some_and(|features| features.user_namespaces == Some(true))
        })
    };
    if nodes.iter().any(supports) {
        return Ok(true);
    }
    let refused = ns
        .create_json::<StoppableContainer>(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": {"name": "own-users"},
            "spec": {"running": true, "template": with_own_users(shell_template())},
        }))
        .await;
    let Err(refused) = refused else {
        bail!("an object with hostUsers: false was accepted on nodes that cannot run it");
    };
    let refused = format!("{refused:#}");
    for words in [
        FIELD,
        "cannot run pods with hostUsers: false",
        "does not support user namespaces",
    ] {
        ensure!(refused.contains(words), "{words:?} is missing in {refused:?}");
    }
    // Without the webhook's name before, and without the advice after.
    let reason = refused.split(FIELD).nth(1).unwrap_or(&refused);
    let reason = reason.split(';').next().unwrap_or(reason);
    fact(TOPIC, &format!("the object is rejected: {reason}"));
    Ok(false)
}
