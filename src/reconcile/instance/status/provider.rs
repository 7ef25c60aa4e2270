//! The condition ProviderReady.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::{Cause, ConditionState};
use crate::reconcile::instance::plan::replacement;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{Role, blocking_cause, is_running, is_terminating, node};

pub(super) fn provider_state(observed: &Observed) -> ConditionState {
    let name = Role::Provider.pod_name(&observed.instance.name_any());
    let pod = match &observed.provider {
        Slot::Taken(whose) => return ConditionState::false_with(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) => Some(pod),
        Slot::Unrecorded(_) | Slot::Free => None,
    };
    if observed.deleting() {
        return ConditionState::false_with(reason::DELETING, "the object is being deleted");
    }
    if observed.may_release() && !observed.node_gone {
        let is = if observed.is_released() { "was" } else { "is being" };
        return ConditionState::false_with(
            reason::RELEASED,
            format!("pod {name} {is} deleted because the container is stopped and whileStopped is Release"),
        );
    }
    if replacement::due(observed) {
        return ConditionState::false_with(
            reason::STARTING,
            format!("nothing runs on pod {name}, and it is replaced by one of the object as it is now"),
        );
    }
    if let Some(pod) = observed
        .working_provider()
        .or_else(|| provider_on_unreachable_node(observed))
    {
        let at = node(pod).unwrap_or_default();
        return ConditionState::true_with(reason::AS_REQUESTED, format!("pod {name} runs on node {at}"));
    }
    if observed.node_gone {
        let at = observed.status().node_name.unwrap_or_default();
        return ConditionState::false_with(
            reason::NODE_GONE,
            format!(
                "node {at} holds the filesystem and does not exist any more. The object continues if the node comes back \
                 with its disk{}{}",
                super::recovery::move_command(&observed.instance),
                super::recovery::abandon_command(&observed.instance)
            ),
        );
    }
    if matches!(observed.provider, Slot::Unrecorded(_)) {
        return ConditionState::false_with(reason::STARTING, super::pod::unrecorded(&name));
    }
    match pod {
        Some(pod) if is_terminating(pod) => ConditionState::false_with(
            reason::STARTING,
            format!("pod {name} is terminating and will be replaced"),
        ),
        Some(pod) => blocking_cause(pod)
            .or_else(|| super::pod::agent_missing_cause(observed, pod))
            .map_or_else(
                || ConditionState::false_with(reason::STARTING, format!("pod {name} is starting")),
                |why| {
                    ConditionState::false_for(prefixed(
                        &name,
                        super::pinned::with_recovery_hint(observed, why),
                    ))
                },
            ),
        None if let Some(why) = observed.template_error() => ConditionState::false_for(why),
        None if observed.home().is_none() => unplaced(observed),
        None => observed.provider_backoff.as_ref().map_or_else(
            || ConditionState::false_with(reason::STARTING, format!("pod {name} has not been created yet")),
            |backoff| ConditionState::false_for(prefixed(&name, backoff.cause.clone())),
        ),
    }
}

/// Before a node is chosen: what the scheduler has to say of the placeholder.
pub(super) fn unplaced(observed: &Observed) -> ConditionState {
    let name = Role::Placeholder.pod_name(&observed.instance.name_any());
    let waiting = || {
        ConditionState::false_with(
            reason::STARTING,
            format!("pod {name} waits for the scheduler to choose a node"),
        )
    };
    match &observed.placeholder {
        Slot::Taken(whose) => ConditionState::false_with(reason::NAME_CONFLICT, whose.clone()),
        Slot::Unrecorded(_) => ConditionState::false_with(reason::STARTING, super::pod::unrecorded(&name)),
        Slot::Ours(pod) => {
            blocking_cause(pod).map_or_else(waiting, |why| ConditionState::false_for(prefixed(&name, why)))
        }
        Slot::Free => observed
            .placeholder_backoff
            .as_ref()
            .map_or_else(waiting, |hold| {
                ConditionState::false_for(prefixed(&name, hold.cause.clone()))
            }),
    }
}

/// The provider pod on an unreachable node. Kubernetes calls all pods there not Ready because of
/// the node; what ran is taken to run.
fn provider_on_unreachable_node(observed: &Observed) -> Option<&Arc<Pod>> {
    observed.node_unreachable.as_ref()?;
    observed
        .provider
        .pod()
        .filter(|pod| is_running(pod) && !is_terminating(pod))
}

fn prefixed(pod: &str, why: Cause) -> Cause {
    Cause {
        message: format!("pod {pod}: {}", why.message),
        reason: why.reason,
    }
}
