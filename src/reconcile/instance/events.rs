/*!
Events of an instance: one for every step of a start and a stop, and one for every part that is
newly blocked. Pure.

They are about the object that the user made: the StoppableContainer, or an instance without one.
The reconciler of StoppableContainers adds only what the instance does not show, so nothing is
published twice. Messages have no ports and counters, so that equal events aggregate.
*/

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::Event;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::conditions::{
    CONSUMER_READY, CONSUMER_SCHEDULED, FILESYSTEM_READY, PROVIDER_READY, READY, reason,
};
use stoppablecontainer_api::{
    Phase, StoppableContainer, StoppableContainerInstance, StoppableContainerInstanceStatus, controller_of,
};

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::events::{blocked, normal, warning};
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{Role, disruption, is_finished};

/// The object that the user made.
pub(super) fn regarding(instance: &StoppableContainerInstance) -> ObjectReference {
    let Some(owner) = controller_of::<StoppableContainer>(instance) else {
        return instance.object_ref(&());
    };
    ObjectReference {
        api_version: Some(owner.api_version.clone()),
        kind: Some(owner.kind.clone()),
        name: Some(owner.name.clone()),
        namespace: instance.namespace(),
        uid: Some(owner.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The events of a pass that found the status `before` and left `after`. `restarted` is how the
/// main container ended before the kubelet started it again.
pub(super) fn events(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
    observed: &Observed,
    restarted: Option<&Cause>,
) -> Vec<Event> {
    let mut events = Vec::new();
    events.extend(chosen(before, after));
    events.extend(pulling(before, after, observed));
    events.extend(prepared(before, after));
    events.extend(started(before, after, observed, restarted));
    events.extend(observed.resized.iter().map(|why| normal(CONSUMER_READY, why)));
    events.extend(stopping(before, after, observed));
    events.extend(blocked(&before.conditions, &after.conditions));
    events.extend(stopped(before, after));
    events
}

fn chosen(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
) -> Option<Event> {
    let node = after.node_name.as_deref()?;
    let message = format!("node {node} was chosen for the kept filesystem");
    let why = Cause::new(reason::SCHEDULED, message);
    before
        .node_name
        .is_none()
        .then(|| normal(CONSUMER_SCHEDULED, &why))
}

fn pulling(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
    observed: &Observed,
) -> Option<Event> {
    let is_new = after.provider_pod_uid.is_some() && after.provider_pod_uid != before.provider_pod_uid;
    let node = after.node_name.as_deref().filter(|_| is_new)?;
    let message = format!(
        "pod {} was created: node {node} pulls image {} if it does not have it",
        Role::Provider.pod_name(&observed.instance.name_any()),
        observed.instance.spec.main_image()
    );
    Some(normal(PROVIDER_READY, &Cause::new(reason::PULLING, message)))
}

fn prepared(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
) -> Option<Event> {
    let is_true = |status: &StoppableContainerInstanceStatus| {
        condition(status, FILESYSTEM_READY).is_some_and(|condition| condition.status == "True")
    };
    let node = after.node_name.as_deref()?;
    let message = format!("the kept filesystem on node {node} is ready");
    let why = Cause::new(reason::FILESYSTEM_PREPARED, message);
    (is_true(after) && !is_true(before)).then(|| normal(FILESYSTEM_READY, &why))
}

/// It runs, for the first time or again.
fn started(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
    observed: &Observed,
    restarted: Option<&Cause>,
) -> Option<Event> {
    if let Some(last) = restarted {
        let message = format!("{}; it was started again", last.message);
        return Some(normal(CONSUMER_READY, &Cause::new(reason::RESTARTED, message)));
    }
    let runs = |status: &StoppableContainerInstanceStatus| status.phase == Some(Phase::Running);
    let message = format!("pod {} runs", observed.instance.name_any());
    (runs(after) && !runs(before)).then(|| normal(CONSUMER_READY, &Cause::new(reason::STARTED, message)))
}

fn stopping(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
    observed: &Observed,
) -> Option<Event> {
    let of = |status| condition(status, CONSUMER_READY).filter(|c| c.reason == reason::STOPPING);
    let now = of(after)?;
    // The warning about a pod that ended by itself comes when its successor waits.
    let pod = observed.consumer.pod().filter(|pod| !is_finished(pod))?;
    if of(before).is_some() {
        return None;
    }
    Some(match disruption(pod) {
        Some(_) => warning(CONSUMER_READY, &Cause::new(reason::EVICTED, &now.message)),
        None => normal(CONSUMER_READY, &Cause::new(reason::STOPPING, &now.message)),
    })
}

fn stopped(
    before: &StoppableContainerInstanceStatus,
    after: &StoppableContainerInstanceStatus,
) -> Option<Event> {
    let of = |status| {
        let ready = condition(status, READY)?;
        (ready.status == "True" && ready.reason == reason::STOPPED).then_some(ready)
    };
    let now = of(after).filter(|_| of(before).is_none())?;
    Some(normal(READY, &Cause::new(reason::STOPPED, &now.message)))
}

fn condition<'a>(status: &'a StoppableContainerInstanceStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests;
