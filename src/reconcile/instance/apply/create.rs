/*!
Creation of a pod. A refused creation is not an error: the refusal becomes a condition.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::core::Status;
use kube::{Api, ResourceExt};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::LABEL_ROLE;

use crate::field_error::FieldError;
use crate::reconcile::conditions::Cause;
use crate::reconcile::context::{Context, ReconcileError, requests};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{Role, has_our_labels};
use crate::rewrite::is_rewritten;
use crate::selections::CreatedPod;
use crate::{dry_run, selections};

pub(super) async fn create(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: &Json,
) -> Result<(), ReconcileError> {
    let instance = Arc::clone(&observed.instance);
    let api = super::pods(context, &instance);
    let name = role.pod_name(&instance.name_any());
    let namespace = instance.namespace().unwrap_or_default();
    let creations = Api::<CreatedPod>::namespaced(context.client.clone(), &namespace);
    match requests::create(&context.client, &creations, pod).await {
        Ok(pod) => accept(context, observed, role, Arc::new(selections::pod(pod)?)).await?,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            // An earlier reconciliation created it and died before the record, or it has lost our
            // labels, or it is not ours.
            let found = Arc::new(selections::pod(api.get(&name).await?)?);
            let created = context.created.pod(&instance.uid().unwrap_or_default(), role);
            let found = match Slot::of(found, &instance, role, created.as_deref()) {
                Slot::Ours(pod) if !has_our_labels(&pod, role, &instance.name_any()) => {
                    Slot::Ours(super::relabel(context, &instance, role, &pod).await?)
                }
                Slot::Unrecorded(pod) => {
                    super::ensure_newest(context, &instance).await?;
                    // Without our labels it is outside of our watch, so no event may come when it
                    // is gone.
                    let words = format!(
                        "pod {} is deleted: it was not recorded when it was created",
                        pod.name_any()
                    );
                    super::failed(
                        context,
                        observed,
                        role,
                        pod.uid().as_deref(),
                        Cause::new(reason::STARTING, words),
                    );
                    super::delete::discard(context, &instance, role, &pod).await?
                }
                Slot::Taken(whose) => {
                    let conflict = Cause::new(reason::NAME_CONFLICT, whose.clone());
                    super::failed(context, observed, role, None, conflict);
                    Slot::Taken(whose)
                }
                slot => slot,
            };
            *super::slot(observed, role) = found;
        }
        Err(kube::Error::Api(status))
            if status.code == 403 && role == Role::Consumer && observed.placeholder.pod().is_some() =>
        {
            // A quota that has no room for both is the usual reason, so the placeholder goes first.
            make_way(context, observed).await?;
            if observed.placeholder.pod().is_none() {
                return Box::pin(create(context, observed, role, pod)).await;
            }
        }
        Err(kube::Error::Api(status)) => {
            let cause = refusal(role, &status);
            tracing::info!(role = %role, name, code = status.code, message = status.message, "creation refused");
            super::failed(context, observed, role, None, cause);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Deletes the placeholder.
async fn make_way(context: &Context, observed: &mut Observed) -> Result<(), ReconcileError> {
    let Some(placeholder) = observed.placeholder.pod().map(Arc::clone) else {
        return Ok(());
    };
    super::delete::delete(context, observed, Role::Placeholder, &placeholder, None).await
}

/// Checks the pod that the API server created. A consumer that our webhook did not rewrite is
/// deleted at once, and is never recorded (invariant I3); its gate keeps it from running until
/// then.
async fn accept(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: Arc<Pod>,
) -> Result<(), ReconcileError> {
    let instance = Arc::clone(&observed.instance);
    if role == Role::Consumer && !is_rewritten(&pod) {
        tracing::warn!(
            name = pod.name_any(),
            namespace = pod.namespace(),
            "a consumer that was not rewritten is deleted"
        );
        let cause = Cause::new(reason::NOT_REWRITTEN, not_rewritten(&pod));
        super::failed(context, observed, role, None, cause);
        *super::slot(observed, role) = super::delete::discard(context, &instance, role, &pod).await?;
        return Ok(());
    }
    let (of, uid) = (instance.uid().unwrap_or_default(), pod.uid().unwrap_or_default());
    context.created.note(&of, role, &uid);
    *super::slot(observed, role) = Slot::Ours(pod);
    Ok(())
}

fn not_rewritten(pod: &Pod) -> String {
    format!(
        "no admission webhook of StoppableContainer saw pod {}, so it was deleted before it could run; see that the \
         MutatingWebhookConfiguration of StoppableContainer exists and does not leave out namespace {}, and that no \
         other webhook removes the label {LABEL_ROLE} from the pod",
        pod.name_any(),
        pod.namespace().unwrap_or_default(),
    )
}

/// Why a pod was not created: its own mistakes, which are the template's, or what stands in its
/// way.
fn refusal(role: Role, status: &Status) -> Cause {
    let mistakes = dry_run::mistakes(status).filter(|_| role != Role::Provider);
    mistakes.map_or_else(
        || Cause::new(reason::CREATION_REFUSED, without_ports(&status.message)),
        |mistakes| Cause::new(reason::TEMPLATE_INVALID, FieldError::list(&mistakes)),
    )
}

/// A message without the ports of this end of connections ("read tcp
/// 10.0.0.1:43210->10.0.0.2:443"): they differ at every try, and would make each refusal another
/// one.
fn without_ports(message: &str) -> String {
    let mut parts = message.split("->");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let address = text.trim_end_matches(|c: char| c.is_ascii_digit());
        if address.len() < text.len() && address.ends_with(':') {
            text.truncate(address.len() - 1);
        }
        text.push_str("->");
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_a_refusal_is_the_same_at_every_try() {
        for (message, expected) in [
            (
                "failed calling webhook: read tcp 10.0.0.1:43210->10.0.0.2:443: connection reset",
                "failed calling webhook: read tcp 10.0.0.1->10.0.0.2:443: connection reset",
            ),
            ("read tcp [::1]:43210->[::1]:443", "read tcp [::1]->[::1]:443"),
            ("a->b", "a->b"),
            ("exceeded quota: 3", "exceeded quota: 3"),
        ] {
            assert_eq!(without_ports(message), expected);
        }
    }
}
