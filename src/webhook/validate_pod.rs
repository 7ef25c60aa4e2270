/*!
Invariant I3 at the API server: the consumer pod as it will be stored is one that the rewrite leaves
alone. Validating webhooks run after all mutating ones, so whatever another webhook undid after us,
and was not repaired by our reinvocation, ends here, and never as a pod on a throw-away filesystem.
*/

use json_patch::Patch;

use super::mutate_pod::{Refusal, rewritten};
use super::{AdmissionDecision, Caches, Request, Settings, patch};
use crate::rewrite::placement_of;
use crate::webhook::review::Operation;

/// Answers `/validate-pod`.
pub(super) async fn validate(settings: &Settings, caches: &Caches, request: &Request) -> AdmissionDecision {
    if !request.is_about("", "Pod") || request.operation != Operation::Create {
        return AdmissionDecision::allow();
    }
    // Either way of placing it will do: a taint may have come or gone since the pod was rewritten.
    match rewritten(settings, caches, request, placement_of).await {
        Ok((pod, result)) => match (serde_json::to_value(&pod), serde_json::to_value(&result.pod)) {
            (Ok(stored), Ok(wanted)) => compare(&patch::between(&stored, &wanted)),
            (Err(error), _) | (_, Err(error)) => Refusal::Unreadable(error.to_string()).into_verdict(),
        },
        Err(refusal) => refusal.into_verdict(),
    }
}

/// Paths only: a difference may be in an environment, which holds secrets.
fn compare(difference: &Patch) -> AdmissionDecision {
    let paths: Vec<&str> = difference
        .0
        .iter()
        .map(|operation| operation.path().as_str())
        .collect();
    if paths.is_empty() {
        return AdmissionDecision::allow();
    }
    AdmissionDecision::forbidden(format!(
        "the pod would not run on its kept filesystem: {} {} not as StoppableContainer's webhook set it, so another admission \
         webhook must have changed it; exclude pods with the label stoppablecontainer.xtlsoft.top/role=consumer there, or \
         configure it not to change these fields",
        paths.join(", "),
        if paths.len() == 1 { "is" } else { "are" },
    ))
}
