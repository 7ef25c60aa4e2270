//! What a reconciliation may see, for tests, each one step away from the ordinary case.

// Tables read better without borrows and wrappers.
#![allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)]

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainerInstance;

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::Backoff;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::Role;
use crate::reconcile::pods::fixtures::{instance, pod, prepared, up};

/// `pod`, with `change` made to it.
pub(super) fn changed(pod: &Arc<Pod>, change: impl FnOnce(&mut Pod)) -> Slot {
    let mut pod = (**pod).clone();
    change(&mut pod);
    Slot::Ours(Arc::new(pod))
}

/// `pod`, on its way out.
pub(super) fn terminating(pod: &Arc<Pod>) -> Slot {
    changed(pod, |pod| {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    })
}

/// Nothing but the instance.
pub(super) fn observed(instance: Arc<StoppableContainerInstance>) -> Observed {
    Observed {
        instance,
        provider: Slot::Free,
        consumer: Slot::Free,
        placeholder: Slot::Free,
        node_gone: false,
        node_unreachable: None,
        node_cordoned: false,
        node_not_ready: None,
        unconfirmed_restart: None,
        agent_missing: false,
        users_obstacle: None,
        other_nodes: true,
        unsuitable: None,
        given_up: None,
        template_check: None,
        resize_refused: None,
        resized: None,
        provider_backoff: None,
        consumer_backoff: None,
        placeholder_backoff: None,
    }
}

/// A prepared instance, changed by `change`, with its provider up.
pub(super) fn with_provider(change: Value) -> Observed {
    let mut object = json!({ "status": prepared() });
    json_patch::merge(&mut object, &change);
    let instance = instance(object);
    Observed {
        provider: Slot::Ours(pod(&instance, Role::Provider, up())),
        ..observed(instance)
    }
}

/// The same with its consumer in the state `status`.
pub(super) fn with_both(change: Value, status: Value) -> Observed {
    let observed = with_provider(change);
    let consumer = Slot::Ours(pod(&observed.instance, Role::Consumer, status));
    Observed { consumer, ..observed }
}

/// A failure that waits for `remaining`.
pub(super) fn backoff(reason: &str, message: &str, remaining: Duration) -> Option<Backoff> {
    Some(Backoff {
        cause: Cause::new(reason, message),
        remaining,
    })
}
