/*!
The pods of an instance: how the controller creates them, and what a pod's status shows.

Values in, values out. Messages about a pod use the words of the scheduler and the kubelet
([`blocking_cause`]), because users search for these. A decision that needs more than the instance
and one pod belongs into `instance`.
*/

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::{
    GATE, GATE_PLACEHOLDER, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE, MANAGED_BY, ROLE_CONSUMER,
    ROLE_PLACEHOLDER, ROLE_PROVIDER, placeholder_pod_name, provider_pod_name,
};

use crate::reconcile::conditions::Cause;

mod consumer;
mod created;
#[cfg(test)]
pub(crate) mod fixtures;
mod hash;
pub(crate) mod health;
mod node_selector;
mod opt_outs;
pub(crate) mod pinned;
mod placeholder;
mod provider;
pub(crate) mod resize;
pub(crate) mod restart;
pub(crate) mod template;
pub(crate) mod template_fields;
mod tolerations;

pub(crate) use consumer::wait_for_placeholder;
pub use consumer::{consumer_hash, consumer_pod};
pub use created::Created;
pub(crate) use hash::template_hash;
pub(crate) use node_selector::NodeSelector;
pub use opt_outs::OptOuts;
pub(crate) use placeholder::{avoided, placeholder_hash, placeholder_pod};
pub(crate) use provider::{is_current, provider_pod};

/// The purpose of one of our pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Keeps node and image.
    Provider,
    /// Runs the user's workload.
    Consumer,
    /// Has the first node chosen for the consumer, and holds the room there.
    Placeholder,
}

// === impl Role ===

impl Role {
    /// Value of the role label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Provider => ROLE_PROVIDER,
            Self::Consumer => ROLE_CONSUMER,
            Self::Placeholder => ROLE_PLACEHOLDER,
        }
    }

    /// Name of the pod of `instance` with this role.
    pub fn pod_name(self, instance: &str) -> String {
        match self {
            Self::Provider => provider_pod_name(instance),
            Self::Consumer => instance.to_owned(),
            Self::Placeholder => placeholder_pod_name(instance),
        }
    }

    /// Our labels on a pod with this role.
    pub fn labels(self, instance: &str) -> [(String, String); 3] {
        [
            (LABEL_MANAGED_BY, MANAGED_BY),
            (LABEL_INSTANCE, instance),
            (LABEL_ROLE, self.label()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

// === Questions ===

/// The owner reference that makes `instance` the controller of a pod.
pub fn owner_reference(instance: &StoppableContainerInstance) -> OwnerReference {
    OwnerReference {
        api_version: StoppableContainerInstance::api_version(&()).into_owned(),
        kind: StoppableContainerInstance::kind(&()).into_owned(),
        name: instance.name_any(),
        uid: instance.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether all of our labels are on the pod. Without them it is outside of our watch.
pub fn has_our_labels(pod: &Pod, role: Role, instance: &str) -> bool {
    role.labels(instance)
        .iter()
        .all(|(key, value)| pod.labels().get(key) == Some(value))
}

/// Deletion has been asked for; containers may still run.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The kubelet is done with the pod and will not start it again, whatever its restart policy.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

/// At least one container runs or is being restarted, and none has not been created yet.
pub fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
}

/// The pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _, _)| status == "True")
}

/// Whether the container `name` ever ran.
pub fn has_started(pod: &Pod, name: &str) -> bool {
    is_running(pod)
        || status(pod)
            .and_then(|s| s.container_statuses.as_ref())
            .is_some_and(|list| list.iter().any(|c| c.name == name && ran(c)))
}

/// Whether the scheduler found no node for the pod so far.
pub fn is_unschedulable(pod: &Pod) -> bool {
    node(pod).is_none() && blocking_cause(pod).is_some_and(|cause| cause.reason == reason::UNSCHEDULABLE)
}

/// Why the pod is not bound to a node, in the scheduler's words. `None` if it is, if the scheduler
/// has not tried yet, and while only our own gates keep the pod.
pub fn unscheduled_cause(pod: &Pod) -> Option<Cause> {
    let ("False", reason, message) = condition(pod, "PodScheduled")? else {
        return None;
    };
    if reason != reason::SCHEDULING_GATED {
        return Some(Cause::new(reason, message));
    }
    let foreign: Vec<_> = gates(pod)
        .filter(|gate| ![GATE, GATE_PLACEHOLDER].contains(gate))
        .collect();
    (!foreign.is_empty()).then(|| {
        let message = format!(
            "pod {} has scheduling gates ({}) and waits until the component that set them removes them",
            pod.name_any(),
            foreign.join(", ")
        );
        Cause::new(reason, message)
    })
}

/// Names of the pod's scheduling gates.
pub fn gates(pod: &Pod) -> impl Iterator<Item = &str> {
    let gates = pod.spec.iter().flat_map(|spec| &spec.scheduling_gates);
    gates.flatten().map(|gate| gate.name.as_str())
}

/// The node that is nominated for the pod.
pub fn nominated(pod: &Pod) -> Option<&str> {
    let name = status(pod)?.nominated_node_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// Whether the room for the pod on its node is reserved, by its placeholder or its nomination.
pub fn is_reserved(pod: &Pod) -> bool {
    gates(pod).any(|gate| gate == GATE_PLACEHOLDER) || nominated(pod).is_some()
}

/// Who removes the pod from its node, and why: a preemption, an eviction, a taint.
pub fn disruption(pod: &Pod) -> Option<Cause> {
    let ("True", reason, message) = condition(pod, "DisruptionTarget")? else {
        return None;
    };
    Some(Cause::new(reason, message))
}

/// Since when a condition of the pod is true.
pub fn true_since<'a>(pod: &'a Pod, kind: &str) -> Option<&'a Time> {
    let conditions = status(pod)?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|c| c.type_ == kind && c.status == "True")?;
    found.last_transition_time.as_ref()
}

/// Node that the pod is bound to.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// Image of the first container.
pub fn main_image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// What keeps a pod from working: the message of the kubelet about the whole pod, then of the
/// scheduler, then a container. `None` while everything takes its normal way.
pub fn blocking_cause(pod: &Pod) -> Option<Cause> {
    let status = status(pod)?;
    if is_finished(pod) {
        let reason = status.reason.clone().unwrap_or_else(|| phase(pod).to_owned());
        let message = status
            .message
            .clone()
            .unwrap_or_else(|| format!("the pod ended: {}", phase(pod)));
        return Some(Cause::new(reason, message));
    }
    if let Some(cause) = unscheduled_cause(pod) {
        return Some(cause);
    }
    let of = |list: &Option<Vec<ContainerStatus>>, may_end| {
        let mut all = list.iter().flatten();
        all.find_map(|container| container_cause(container, may_end))
    };
    of(&status.init_container_statuses, true).or_else(|| of(&status.container_statuses, false))
}

/// `may_end`: the container is expected to end with exit code 0.
fn container_cause(container: &ContainerStatus, may_end: bool) -> Option<Cause> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return None;
        }
        if reason == "CrashLoopBackOff" {
            return Some(health::crash_loop(container, reason));
        }
        let words = waiting.message.as_deref().unwrap_or(reason);
        return Some(Cause::new(
            reason,
            format!("container {}: {words}", container.name),
        ));
    }
    let end = state.terminated.as_ref();
    end.filter(|end| end.exit_code != 0 || !may_end)
        .map(|end| health::termination_cause(&container.name, end))
}

fn ran(container: &ContainerStatus) -> bool {
    let happened = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state
            .as_ref()
            .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    };
    container.restart_count > 0 || happened(&container.state) || happened(&container.last_state)
}

fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

fn phase(pod: &Pod) -> &str {
    status(pod).and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Status, reason and message of a condition.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status(pod)?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == kind)?;
    Some((
        found.status.as_str(),
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}
