//! The status of a StoppableContainer: the one of its instance, or why there is none.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, READY, reason};
use stoppablecontainer_api::{
    KeptFilesystem, Phase, StoppableContainer, StoppableContainerInstance, StoppableContainerStatus,
};

use crate::reconcile::conditions::{ConditionState, conditions};
use crate::reconcile::container::containers;
use crate::reconcile::container::desired::{desired_spec, template_error};
use crate::reconcile::container::plan::given_up;
use crate::reconcile::container::state::{Observed, Slot, is_reset};
use crate::reconcile::context::requests::{patch_params, status_patch};
use crate::reconcile::context::{Context, ReconcileError, events};

/// How long the way to the next state may take before it is shown. A start on a node that has the
/// image, and a stop of a container that ends at its signal, take about as long.
const HOLD: Duration = Duration::from_secs(1);

/// The status of `observed`. Its observedGeneration is the container's present generation only if
/// the instance has the present spec and its own status describes that.
pub(super) fn status(observed: &Observed, now: Timestamp) -> StoppableContainerStatus {
    let container = &observed.container;
    let old = container.status.clone().unwrap_or_default();
    let generation = container.metadata.generation;
    let without_instance = |phase, state| StoppableContainerStatus {
        phase: Some(phase),
        node_name: None,
        instance_name: None,
        instance_uid: old.instance_uid.clone(),
        reset_instance_uid: old.reset_instance_uid.clone(),
        given_up_nodes: old.given_up_nodes.clone(),
        filesystem: None,
        last_start: None,
        last_stop: None,
        observed_generation: generation,
        conditions: conditions(&old.conditions, [(READY, state)], generation, now),
    };
    let deleting = container.metadata.deletion_timestamp.is_some();
    let name = container.name_any();
    let instance = match &observed.instance {
        Slot::Ours(instance) if !deleting && let Some(why) = given_up(instance) => {
            let verdict = observed.backoff.as_ref().map_or_else(
                || ConditionState::false_with(reason::NODE_GIVEN_UP, why.message.clone()),
                |hold| ConditionState::false_for(hold.cause.clone()),
            );
            return without_instance(Phase::Pending, verdict);
        }
        Slot::Ours(instance) if !deleting && let Some(state) = resetting(container, instance) => {
            return StoppableContainerStatus {
                instance_name: Some(name),
                instance_uid: instance.uid(),
                ..without_instance(Phase::Pending, state)
            };
        }
        Slot::Ours(instance) => instance,
        Slot::Free | Slot::Orphan(_) | Slot::Lost(_) | Slot::Taken(_) if deleting => {
            return without_instance(
                Phase::Pending,
                ConditionState::false_with(reason::DELETING, "the object is being deleted"),
            );
        }
        Slot::Free if let Some(why) = template_error(container) => {
            return without_instance(Phase::Failed, ConditionState::false_for(why));
        }
        Slot::Free => {
            let state = observed.backoff.as_ref().map_or_else(
                || {
                    ConditionState::false_with(
                        reason::STARTING,
                        format!("instance {name} has not been created yet"),
                    )
                },
                |backoff| ConditionState::false_for(backoff.cause.clone()),
            );
            return without_instance(Phase::Pending, state);
        }
        Slot::Orphan(_) => {
            let message = format!("instance {name} has not been taken over yet");
            return without_instance(
                Phase::Pending,
                ConditionState::false_with(reason::STARTING, message),
            );
        }
        Slot::Lost(message) => {
            let state = ConditionState::false_with(reason::FILESYSTEM_LOST, message.clone());
            let states = [(READY, state.clone()), (FILESYSTEM_READY, state.clone())];
            return StoppableContainerStatus {
                conditions: conditions(&old.conditions, states, generation, now),
                ..without_instance(Phase::Failed, state)
            };
        }
        Slot::Taken(message) => {
            return without_instance(
                Phase::Failed,
                ConditionState::false_with(reason::NAME_CONFLICT, message.clone()),
            );
        }
    };
    let inner = instance.status.clone().unwrap_or_default();
    let current =
        instance.spec == desired_spec(container) && inner.observed_generation == instance.metadata.generation;
    let observed_generation = if current {
        generation
    } else {
        old.observed_generation
    };
    let mirrored: Vec<_> = inner
        .conditions
        .into_iter()
        .map(|condition| Condition {
            observed_generation,
            ..condition
        })
        .collect();
    let starting = || {
        let state = ConditionState::false_with(reason::STARTING, format!("instance {name} was created"));
        conditions(&old.conditions, [(READY, state)], observed_generation, now)
    };
    StoppableContainerStatus {
        phase: Some(inner.phase.unwrap_or(Phase::Pending)),
        node_name: inner.node_name,
        instance_name: Some(name.clone()),
        instance_uid: instance.uid(),
        reset_instance_uid: old.reset_instance_uid.clone(),
        given_up_nodes: old.given_up_nodes.clone(),
        last_start: inner.last_start,
        last_stop: inner.last_stop,
        filesystem: inner.filesystem.map(|filesystem| KeptFilesystem {
            usage: filesystem.usage,
        }),
        observed_generation,
        conditions: if mirrored.is_empty() { starting() } else { mirrored },
    }
}

/// The state of an object whose files are being deleted because the user asked for that.
fn resetting(
    container: &StoppableContainer,
    instance: &StoppableContainerInstance,
) -> Option<ConditionState> {
    let uid = instance.uid()?;
    instance.metadata.deletion_timestamp.as_ref()?;
    if !is_reset(container, &uid) {
        return None;
    }
    let conditions = instance.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|condition| condition.type_ == FILESYSTEM_READY);
    let waits = conditions.find(|condition| condition.reason == reason::DELETING);
    let waits = waits
        .map(|condition| format!(": {}", condition.message))
        .unwrap_or_default();
    Some(ConditionState::false_with(
        reason::RESETTING,
        format!(
            "the files are deleted as requested, and the object then begins with an empty filesystem{waits}"
        ),
    ))
}

/// How long a status is not written yet: the way to the state that the newest spec asks for is
/// shown only if the object is not there soon, and at most once in [`HOLD`]. Until an object that
/// was ready shows the way, its observedGeneration says that the status is of the earlier spec.
/// `None` if the status is to be written.
///
/// Everything else is shown at once: a state that is reached, an obstacle, a change that the user
/// did not ask for, and what the status records (UIDs, nodes that were given up).
pub(super) fn hold(
    context: &Context,
    container: &StoppableContainer,
    new: &StoppableContainerStatus,
) -> Option<Duration> {
    let old = container.status.as_ref()?;
    let uid = container.uid().unwrap_or_default();
    if is_only_usage(old, new) {
        return Some(context.attempts.usages.wait(&uid)).filter(|left| !left.is_zero());
    }
    if !is_only_the_way(old, new) {
        return None;
    }
    // Each write begins the time anew.
    let shown = container.resource_version().unwrap_or_default();
    let since = context.attempts.seen_for(&uid, &format!("version {shown}"));
    Some(HOLD.saturating_sub(since)).filter(|left| !left.is_zero())
}

/// Whether `new` differs from `old` in nothing but how far the object is on its way: on that of the
/// newest spec, or on the way that `old` shows.
fn is_only_the_way(old: &StoppableContainerStatus, new: &StoppableContainerStatus) -> bool {
    let ready = |status: &StoppableContainerStatus| {
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == READY).cloned()
    };
    let is_on_the_way = |condition: &Condition| {
        condition.status == "False"
            && [reason::STARTING, reason::STOPPING].contains(&condition.reason.as_str())
    };
    let recorded = |status: &StoppableContainerStatus| {
        (
            status.instance_uid.clone(),
            status.reset_instance_uid.clone(),
            status.given_up_nodes.clone(),
        )
    };
    let (Some(was), Some(is)) = (ready(old), ready(new)) else {
        return false;
    };
    let asked = old.observed_generation != new.observed_generation;
    let goes_on = is_on_the_way(&was) && was.reason == is.reason;
    let may_wait = (was.status == "True" && asked) || goes_on;
    is_on_the_way(&is) && may_wait && recorded(old) == recorded(new)
}

/// Whether `new` shows another usage of the disk, and nothing else is new: that may be late.
fn is_only_usage(old: &StoppableContainerStatus, new: &StoppableContainerStatus) -> bool {
    let without_usage = |status: &StoppableContainerStatus| StoppableContainerStatus {
        filesystem: status.filesystem.as_ref().map(|_| KeptFilesystem { usage: None }),
        last_start: None,
        last_stop: None,
        ..status.clone()
    };
    old.filesystem != new.filesystem && without_usage(old) == without_usage(new)
}

pub(super) async fn write_status(
    context: &Context,
    observed: &Observed,
    status: &StoppableContainerStatus,
) -> Result<(), ReconcileError> {
    let Observed {
        container, instance, ..
    } = observed;
    let is_written = |old: &StoppableContainerStatus| {
        let (last_start, last_stop) = (old.last_start.clone(), old.last_stop.clone());
        *old == StoppableContainerStatus {
            last_start,
            last_stop,
            ..status.clone()
        }
    };
    if container.status.as_ref().is_some_and(is_written) {
        return Ok(());
    }
    let patch =
        status_patch(&**container, container.status.as_ref(), status).map_err(ReconcileError::Patch)?;
    let written = containers(context, container)
        .patch_status(&container.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    context.attempts.usages.done(&container.uid().unwrap_or_default());
    let written = context.own.containers.note(Arc::new(written));
    let before = container.status.as_ref();
    let before = before
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let own: Vec<_> = status
        .conditions
        .iter()
        .filter(|condition| !is_shown(instance, condition))
        .cloned()
        .collect();
    events::publish(context, &written.object_ref(&()), events::blocked(before, &own)).await;
    Ok(())
}

/// Whether the instance shows the same, and so has published it.
fn is_shown(instance: &Slot, condition: &Condition) -> bool {
    let Slot::Ours(instance) = instance else {
        return false;
    };
    let shown = instance.status.iter().flat_map(|status| &status.conditions);
    let mut shown = shown.filter(|shown| shown.type_ == condition.type_);
    shown.any(|shown| shown.status == condition.status && shown.reason == condition.reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(change: impl FnOnce(&mut serde_json::Value)) -> StoppableContainerStatus {
        let mut status = json!({
            "phase": "Running", "observedGeneration": 1,
            "filesystem": { "usage": { "bytes": 4096, "inodes": 1 } },
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn i18_only_a_status_with_nothing_but_another_usage_may_be_late() {
        let old = shown(|_| ());
        let bytes = |status: &mut serde_json::Value| status["filesystem"]["usage"]["bytes"] = json!(9);
        assert!(is_only_usage(&old, &shown(bytes)));
        assert!(!is_only_usage(&old, &old));
        let stopped = shown(|status| {
            bytes(status);
            status["phase"] = json!("Stopped");
        });
        assert!(!is_only_usage(&old, &stopped));
        let lost = shown(|status| status["filesystem"] = json!(null));
        assert!(!is_only_usage(&old, &lost));
    }
}
