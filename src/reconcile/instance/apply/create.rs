/*!
Creation of a pod. A pod whose creation is refused is no error: the refusal is part of how things stand.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::core::Status;
use kube::{Api, ResourceExt};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::LABEL_ROLE;

use crate::problem::Problem;
use crate::reconcile::conditions::Trouble;
use crate::reconcile::context::{Context, Failure, requests};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{Role, labelled};
use crate::rewrite::is_rewritten;
use crate::selections::CreatedPod;
use crate::{selections, trial};

pub(super) async fn create(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: &Json,
) -> Result<(), Failure> {
    let instance = Arc::clone(&observed.instance);
    let api = super::pods(context, &instance);
    let name = role.pod_name(&instance.name_any());
    let namespace = instance.namespace().unwrap_or_default();
    let creations = Api::<CreatedPod>::namespaced(context.client.clone(), &namespace);
    match requests::create(&context.client, &creations, pod).await {
        Ok(pod) => accept(context, observed, role, Arc::new(selections::pod(pod)?)).await?,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            // Made in an earlier pass that did not live to record it, or without our labels, or not ours.
            let found = Arc::new(selections::pod(api.get(&name).await?)?);
            let created = context.created.pod(&instance.uid().unwrap_or_default(), role);
            let found = match Slot::of(found, &instance, role, created.as_deref()) {
                Slot::Ours(pod) if !labelled(&pod, role, &instance.name_any()) => {
                    Slot::Ours(super::relabel(context, &instance, role, &pod).await?)
                }
                Slot::Stray(pod) => {
                    super::confirm(context, &instance).await?;
                    // Without our labels it is outside of our watch, so no event may come when it is gone.
                    let words = format!(
                        "pod {} is deleted: it was not recorded when it was created",
                        pod.name_any()
                    );
                    super::failed(
                        context,
                        observed,
                        role,
                        pod.uid().as_deref(),
                        Trouble::new(reason::STARTING, words),
                    );
                    super::delete::discard(context, &instance, &pod).await?
                }
                Slot::Taken(whose) => {
                    let conflict = Trouble::new(reason::NAME_CONFLICT, whose.clone());
                    super::failed(context, observed, role, None, conflict);
                    Slot::Taken(whose)
                }
                slot => slot,
            };
            *super::slot(observed, role) = found;
        }
        Err(kube::Error::Api(status)) => {
            let trouble = refusal(role, &status);
            tracing::info!(role = %role, name, code = status.code, message = status.message, "creation refused");
            super::failed(context, observed, role, None, trouble);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Looks at what the API server created. A consumer that no webhook of ours rewrote goes at once, and is never recorded
/// (invariant I3); its gate keeps it from running until then.
async fn accept(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: Arc<Pod>,
) -> Result<(), Failure> {
    let instance = Arc::clone(&observed.instance);
    if role == Role::Consumer && !is_rewritten(&pod) {
        tracing::warn!(
            name = pod.name_any(),
            namespace = pod.namespace(),
            "a consumer that was not rewritten is deleted"
        );
        let trouble = Trouble::new(reason::NOT_REWRITTEN, not_rewritten(&pod));
        super::failed(context, observed, role, None, trouble);
        *super::slot(observed, role) = super::delete::discard(context, &instance, &pod).await?;
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

/// Why a pod was not created: its own mistakes, which are the template's, or what stands in its way.
fn refusal(role: Role, status: &Status) -> Trouble {
    let mistakes = trial::mistakes(status).filter(|_| role == Role::Consumer);
    mistakes.map_or_else(
        || Trouble::new(reason::CREATION_REFUSED, status.message.clone()),
        |mistakes| Trouble::new(reason::TEMPLATE_INVALID, Problem::list(&mistakes)),
    )
}
