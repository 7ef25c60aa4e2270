//! The condition ConsumerReady.

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::{Cause, ConditionState};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::instance::status::recovery;
use crate::reconcile::pods::{
    blocking_cause, disruption, is_ready, is_running, is_terminating, node, restart,
};

pub(super) fn consumer_state(observed: &Observed) -> ConditionState {
    let name = observed.instance.name_any();
    let wanted = observed.instance.spec.running && !observed.deleting();
    match &observed.consumer {
        // It is in the way of a start only.
        Slot::Taken(whose) if wanted => ConditionState::false_with(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) if is_terminating(pod) => {
            let why = disruption(pod).map(|Cause { reason, message }| format!(" ({reason}: {message})"));
            let then = if !wanted {
                ""
            } else if restart::is_due(&observed.instance, pod) {
                "; it is restarted as requested"
            } else {
                "; a new pod will be created"
            };
            ConditionState::false_with(
                reason::STOPPING,
                format!("pod {name} is terminating{}{then}", why.unwrap_or_default()),
            )
        }
        // As after the deletion, which follows at once: it then needs no other write.
        Slot::Ours(_) if !wanted => {
            ConditionState::false_with(reason::STOPPING, format!("pod {name} is terminating"))
        }
        Slot::Ours(pod) if observed.is_left_behind(pod) => {
            let at = node(pod).unwrap_or("that is gone");
            ConditionState::false_with(
                reason::STOPPING,
                format!(
                    "pod {name} is left of node {at}, which does not have the filesystem; Kubernetes removes the \
                     pods of a node that is gone within about a minute"
                ),
            )
        }
        // The kubelet knows only that the container runs, or restarts again and again.
        Slot::Ours(_) if let Some(what) = observed.blocked() => ConditionState::false_with(
            reason::WAITING_FOR_FILESYSTEM,
            format!("pod {name} is waiting for its filesystem: {what}"),
        ),
        Slot::Ours(_) if let Some(last) = observed.unconfirmed_failure() => ConditionState::false_for(last),
        Slot::Ours(pod) if is_ready(pod) && !observed.filesystem_is_announced() => {
            ConditionState::true_with(reason::AS_REQUESTED, format!("pod {name} is ready"))
        }
        Slot::Ours(pod) => ConditionState::false_for(
            blocking_cause(pod)
                .or_else(|| super::pod::agent_missing_cause(observed, pod))
                .unwrap_or_else(|| {
                    // The kubelet reports only in events that a volume's Secret is missing.
                    let namespace = observed.instance.namespace().unwrap_or_default();
                    let how = if is_running(pod) && observed.filesystem_is_announced() {
                        "waits for its filesystem, which the node agent prepares".to_owned()
                    } else if is_running(pod) {
                        "runs and is not ready yet".to_owned()
                    } else {
                        format!(
                            "is starting; if that lasts, kubectl describe pod -n {namespace} {name} names what it \
                             waits for, for example a Secret or a volume"
                        )
                    };
                    Cause::new(reason::STARTING, format!("pod {name} {how}"))
                }),
        ),
        Slot::Unrecorded(_) if wanted => observed.consumer_backoff.as_ref().map_or_else(
            || ConditionState::false_with(reason::STARTING, super::pod::unrecorded(&name)),
            |backoff| ConditionState::false_for(backoff.cause.clone()),
        ),
        Slot::Unrecorded(_) | Slot::Taken(_) | Slot::Free if !wanted => {
            ConditionState::false_with(reason::STOPPED, "running is false")
        }
        _ if let Some(why) = observed.template_error() => ConditionState::false_for(why),
        _ if let Some(why) = &observed.users_obstacle => {
            ConditionState::false_with(reason::USER_NAMESPACES_UNSUPPORTED, why.clone())
        }
        _ => {
            if let Some(excess) = observed.start_excess() {
                return ConditionState::false_for(recovery::refusal(&observed.instance, &excess));
            }
            observed.consumer_backoff.as_ref().map_or_else(
                || {
                    ConditionState::false_with(
                        reason::STARTING,
                        "waiting for the provider pod and the filesystem",
                    )
                },
                |backoff| ConditionState::false_for(backoff.cause.clone()),
            )
        }
    }
}
