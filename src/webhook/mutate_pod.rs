/*!
The mutating half for consumer pods: facts for the rewrite, and its result as a patch.
*/

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::{Excess, Placement, StoppableContainerInstance, pod_excesses};

use super::caches::{Found, NotFound};
use super::{AdmissionDecision, Caches, Request, Settings, patch};
use crate::rewrite::{Denial, Facts, Rewritten, rewrite};
use crate::webhook::review::Operation;

/// Why a consumer pod is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "labels say that this is a consumer pod of StoppableContainer, which only {controller} may create, not {user}"
    )]
    Creator { controller: String, user: String },
    #[error("the object is not a valid Pod: {0}")]
    Unreadable(String),
    #[error("{field}: {0}; a consumer pod is not as large as this even with what admission webhooks add", field = .0.field_or("spec"))]
    TooLarge(Excess),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error(
        "StoppableContainerInstance {0}: spec.running is false; set it to true, or try again when the webhook has seen that \
         it is true"
    )]
    Stopped(String),
    #[error("StoppableContainerInstance {0}: it is being deleted, so no consumer is started for it")]
    Deleted(String),
    #[error(transparent)]
    Denied(#[from] Denial),
}

/// Answers `/mutate`.
pub(super) async fn mutate(settings: &Settings, caches: &Caches, request: &Request) -> AdmissionDecision {
    if !request.is_about("", "Pod") || request.operation != Operation::Create {
        return AdmissionDecision::allow();
    }
    match rewritten(settings, caches, request, |_, _| None).await {
        Ok((pod, Rewritten { pod: new, warnings })) => {
            match (serde_json::to_value(&pod), serde_json::to_value(&new)) {
                (Ok(old), Ok(new)) => {
                    let raw: Value = request.object.read().unwrap_or_default();
                    let old = patch::held(old, &raw);
                    AdmissionDecision::patch(patch::between(&old, &new)).with_warnings(warnings)
                }
                (Err(error), _) | (_, Err(error)) => Refusal::Unreadable(error.to_string()).into_verdict(),
            }
        }
        Err(refusal) => refusal.into_verdict(),
    }
}

/// The pod of the request and what the rewrite makes of it. `placement` may fix how it gets to its
/// node, given the pod and the node that holds the filesystem.
pub(super) async fn rewritten(
    settings: &Settings,
    caches: &Caches,
    request: &Request,
    placement: impl Fn(&Pod, &str) -> Option<Placement>,
) -> Result<(Pod, Rewritten), Refusal> {
    if request.user_info.username != settings.controller {
        let (controller, user) = (settings.controller.clone(), request.user_info.username.clone());
        return Err(Refusal::Creator { controller, user });
    }
    let pod = read(&request.object)?;
    let attempt = || {
        let Found {
            instance,
            node,
            scheduler_claims,
        } = caches.find(&pod, &request.namespace)?;
        // A dry run starts nothing: it is answered as for a start.
        if request.dry_run != Some(true) {
            may_run(&instance)?;
        }
        let home = instance
            .status
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .unwrap_or_default();
        let facts = Facts {
            wrapper: &settings.wrapper,
            instance: &instance,
            node: node.as_deref(),
            scheduler_claims: &scheduler_claims,
            placement: placement(&pod, home),
        };
        Ok(rewrite(&pod, &facts)?)
    };
    let answer: Result<Rewritten, Refusal> = caches
        .decide(attempt, |r| !r.as_ref().is_err_and(Refusal::is_transient))
        .await;
    Ok((pod, answer?))
}

/// Whether the user wants a consumer at all (invariant I14): the controller may have decided on an
/// old copy.
fn may_run(instance: &StoppableContainerInstance) -> Result<(), Refusal> {
    if instance.metadata.deletion_timestamp.is_some() {
        Err(Refusal::Deleted(instance.name_any()))
    } else if instance.spec.running {
        Ok(())
    } else {
        Err(Refusal::Stopped(instance.name_any()))
    }
}

fn read(object: &Json) -> Result<Pod, Refusal> {
    if let Some(excess) = pod_excesses(object).into_iter().next() {
        return Err(Refusal::TooLarge(excess));
    }
    object
        .read()
        .map_err(|error| Refusal::Unreadable(error.to_string()))
}

// === impl Refusal ===

impl Refusal {
    /// Whether the next change of an instance may turn it into a yes: the cache may be behind the
    /// controller's.
    fn is_transient(&self) -> bool {
        match self {
            Self::NotFound(NotFound::NoInstance(_)) | Self::Stopped(_) => true,
            Self::Denied(denial) => denial.is_transient(),
            Self::NotFound(_)
            | Self::Creator { .. }
            | Self::Unreadable(_)
            | Self::TooLarge(_)
            | Self::Deleted(_) => false,
        }
    }

    pub(super) fn into_verdict(self) -> AdmissionDecision {
        let message = self.to_string();
        match self {
            Self::Creator { .. } => AdmissionDecision::forbidden(message),
            refusal if refusal.is_transient() => AdmissionDecision::not_yet(message),
            _ => AdmissionDecision::invalid(message),
        }
    }
}
