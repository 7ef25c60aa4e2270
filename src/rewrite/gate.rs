/*!
The scheduling gate with which the controller creates consumer pods, and the marks by which it knows
that the rewrite took it off.

The API server does not bind a pod that has a gate, and refuses a pod with a gate and a `nodeName`
(`ValidatePodSpec` in Kubernetes' `pkg/apis/core/validation`). So a pod that our webhook did not see
waits.
*/

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use stoppablecontainer_api::names::{ANNOTATION_MAIN_CONTAINER, GATE};

use super::{command, volume};

/// Takes our gate off. Gates of others stay.
pub(super) fn open(spec: &mut PodSpec) {
    if let Some(gates) = &mut spec.scheduling_gates {
        gates.retain(|gate| gate.name != GATE);
        if gates.is_empty() {
            spec.scheduling_gates = None;
        }
    }
}

/// Whether a consumer pod, as the API server stored it, went through [`super::rewrite`]: its gate
/// is off, and its main container runs the wrapper and has the volume. The final validation checks
/// other changes by other webhooks, because it knows the facts.
pub fn is_rewritten(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec
        .scheduling_gates
        .iter()
        .flatten()
        .any(|gate| gate.name == GATE);
    let noted = pod.annotations().get(ANNOTATION_MAIN_CONTAINER);
    let main = spec.containers.iter().find(|c| Some(&c.name) == noted);
    !gated && volume::is_listed(spec) && main.is_some_and(|c| volume::is_mounted(c) && command::is_wrapped(c))
}
