//! The status of a StoppableContainer: the one of its instance, or why there is none.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, READY, reason};
use stoppablecontainer_api::{KeptFilesystem, Phase, StoppableContainer, StoppableContainerStatus};

use crate::reconcile::conditions::{ConditionState, conditions};
use crate::reconcile::container::containers;
use crate::reconcile::container::desired::{desired_spec, template_error};
use crate::reconcile::container::plan::given_up;
use crate::reconcile::container::state::{Observed, Slot};
use crate::reconcile::context::requests::{patch_params, status_patch};
use crate::reconcile::context::{Context, ReconcileError, events};

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
        given_up_nodes: old.given_up_nodes.clone(),
        filesystem: None,
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
        given_up_nodes: old.given_up_nodes.clone(),
        filesystem: inner.filesystem.map(|filesystem| KeptFilesystem {
            usage: filesystem.usage,
        }),
        observed_generation,
        conditions: if mirrored.is_empty() { starting() } else { mirrored },
    }
}

pub(super) async fn write_status(
    context: &Context,
    container: &Arc<StoppableContainer>,
    status: &StoppableContainerStatus,
) -> Result<(), ReconcileError> {
    if container.status.as_ref() == Some(status) {
        return Ok(());
    }
    let patch =
        status_patch(&**container, container.status.as_ref(), status).map_err(ReconcileError::Patch)?;
    let written = containers(context, container)
        .patch_status(&container.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    let before = container
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    events::changes(context, written.object_ref(&()), before, &status.conditions).await;
    Ok(())
}
