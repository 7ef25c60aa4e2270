/*!
Carries out a plan, and writes the status.

Every write names what it was decided on (UID and resourceVersion), so a decision
made on an old cache fails instead of doing harm, and is made again.
*/

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::{FIELD_MANAGER_CONTROLLER, FINALIZER, LABEL_ROLE, PROVIDER_CONTAINER};
use stoppablecontainer_api::{StoppableContainerInstance, StoppableContainerInstanceStatus};

use crate::problem::Problem;
use crate::reconcile::context::attempts::{Hold, Task};
use crate::reconcile::instance::plan::{Action, Observed, Slot};
use crate::reconcile::pods::{Role, Trouble, labelled};
use crate::reconcile::{Context, Failure, context::requests, pods::health};
use crate::rewrite::is_rewritten;
use crate::trial;
use crate::watched::{self, CreatedPod, HeldPod};

/// What is known after a plan was carried out.
#[derive(Debug)]
pub enum Outcome {
    /// The instance is still there; this is how things stand now.
    Present(Box<Observed>),
    /// The last thing that held the instance was taken off.
    Released,
}

/// Carries out `actions` in order, and stops at the first that could not be decided on what was observed.
///
/// A pod whose creation is refused is no error: the refusal is part of how things stand.
pub async fn apply(
    context: &Context,
    mut observed: Observed,
    actions: Vec<Action>,
) -> Result<Outcome, Failure> {
    for action in actions {
        match action {
            Action::AddFinalizer => {
                observed.instance = set_finalizer(context, &observed.instance, true).await?;
            }
            Action::RemoveFinalizer => {
                match set_finalizer(context, &observed.instance, false).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
                forget(context, &observed.instance);
                return Ok(Outcome::Released);
            }
            Action::Create(role, pod) => create(context, &mut observed, role, &pod).await?,
            Action::Relabel(role, pod) => {
                let pod = relabel(context, &observed.instance, role, &pod).await?;
                *slot(&mut observed, role) = Slot::Ours(pod);
            }
            Action::Delete(role, pod, trouble) => delete(context, &mut observed, role, &pod, trouble).await?,
            Action::Discard(role, pod) => {
                *slot(&mut observed, role) = discard(context, &observed.instance, &pod).await?;
            }
        }
    }
    Ok(Outcome::Present(Box::new(observed)))
}

/// Writes the status if it differs from the one that the instance has, and returns the instance as it is then.
///
/// The patch names the controller's fields and no others: `filesystem` is the agent's.
pub async fn write_status(
    context: &Context,
    instance: &Arc<StoppableContainerInstance>,
    status: &StoppableContainerInstanceStatus,
) -> Result<Arc<StoppableContainerInstance>, Failure> {
    if instance.status.as_ref() == Some(status) {
        return Ok(Arc::clone(instance));
    }
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("filesystem");
        // In a merge patch a field that is to go has to be named.
        for absent in [
            "nodeName",
            "providerPodUid",
            "consumerPodUid",
            "placement",
            "image",
            "storageLimit",
            "templateCheck",
        ] {
            fields.entry(absent).or_insert(Value::Null);
        }
        fields.entry("conditions").or_insert_with(|| json!([]));
    }
    let patch = json!({ "metadata": { "resourceVersion": instance.resource_version() }, "status": fields });
    let api = instances(context, instance);
    let written = api
        .patch_status(&instance.name_any(), &ours(), &Patch::Merge(patch))
        .await?;
    Ok(Arc::new(written))
}

/// Asks the API server whether `instance` is the newest state of the object: a decision on an older one could undo what
/// the user has wished since (invariant I17).
///
/// # Errors
/// [`Failure::Stale`] if it is not.
pub async fn confirm(context: &Context, instance: &StoppableContainerInstance) -> Result<(), Failure> {
    let newest = instances(context, instance)
        .get_metadata_opt(&instance.name_any())
        .await?;
    match newest {
        Some(newest) if newest.metadata.resource_version == instance.metadata.resource_version => Ok(()),
        _ => Err(Failure::Stale),
    }
}

/// The instance is gone: nothing about it is remembered.
pub fn forget(context: &Context, instance: &StoppableContainerInstance) {
    let uid = instance.uid().unwrap_or_default();
    context.attempts.forget(&uid);
    context.created.forget(&uid);
}

async fn set_finalizer(
    context: &Context,
    instance: &Arc<StoppableContainerInstance>,
    present: bool,
) -> Result<Arc<StoppableContainerInstance>, Failure> {
    let patch = finalizer_patch(instance.as_ref(), present);
    let written = instances(context, instance)
        .patch(&instance.name_any(), &ours(), &Patch::Merge(patch))
        .await?;
    Ok(Arc::new(written))
}

/// Merge patch that puts our finalizer on an object or takes it off, if the object is still the one that was seen.
pub fn finalizer_patch(object: &impl ResourceExt, present: bool) -> Value {
    let mut finalizers: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|f| *f != FINALIZER)
        .cloned()
        .collect();
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
    json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } })
}

async fn create(context: &Context, observed: &mut Observed, role: Role, pod: &Json) -> Result<(), Failure> {
    let instance = Arc::clone(&observed.instance);
    let api = pods(context, &instance);
    let name = role.pod_name(&instance.name_any());
    let namespace = instance.namespace().unwrap_or_default();
    let creations = Api::<CreatedPod>::namespaced(context.client.clone(), &namespace);
    match requests::create(&context.client, &creations, pod).await {
        Ok(pod) => accept(context, observed, role, Arc::new(watched::pod(pod)?)).await?,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            // Made in an earlier pass that did not live to record it, or without our labels, or not ours.
            let found = Arc::new(watched::pod(api.get(&name).await?)?);
            let created = context.created.pod(&instance.uid().unwrap_or_default(), role);
            let found = match Slot::of(found, &instance, role, created.as_deref()) {
                Slot::Ours(pod) if !labelled(&pod, role, &instance.name_any()) => {
                    Slot::Ours(relabel(context, &instance, role, &pod).await?)
                }
                Slot::Stray(pod) => {
                    confirm(context, &instance).await?;
                    // Without our labels it is outside of our watch, so no event may come when it is gone.
                    let words = format!(
                        "pod {} is deleted: it was not recorded when it was created",
                        pod.name_any()
                    );
                    failed(
                        context,
                        observed,
                        role,
                        pod.uid().as_deref(),
                        Trouble::new(reason::STARTING, words),
                    );
                    discard(context, &instance, &pod).await?
                }
                Slot::Taken(whose) => {
                    let conflict = Trouble::new(reason::NAME_CONFLICT, whose.clone());
                    failed(context, observed, role, None, conflict);
                    Slot::Taken(whose)
                }
                slot => slot,
            };
            *slot(observed, role) = found;
        }
        Err(kube::Error::Api(status)) => {
            let trouble = refusal(role, &status);
            tracing::info!(role = %role, name, code = status.code, message = status.message, "creation refused");
            failed(context, observed, role, None, trouble);
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
        failed(context, observed, role, None, trouble);
        *slot(observed, role) = discard(context, &instance, &pod).await?;
        return Ok(());
    }
    let (of, uid) = (instance.uid().unwrap_or_default(), pod.uid().unwrap_or_default());
    context.created.note(&of, role, &uid);
    *slot(observed, role) = Slot::Ours(pod);
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

/// Deletes a pod that is not recorded. Its present content does not matter, only its UID.
async fn discard(
    context: &Context,
    instance: &StoppableContainerInstance,
    pod: &Pod,
) -> Result<Slot, Failure> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match pods(context, instance).delete(&pod.name_any(), &params).await {
        Ok(answer) => match answer.left() {
            Some(pod) => Ok(Slot::Stray(Arc::new(watched::pod(pod)?))),
            None => Ok(Slot::Free),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Slot::Free),
        Err(error) => Err(error.into()),
    }
}

/// Why a pod was not created: its own mistakes, which are the template's, or what stands in its way.
fn refusal(role: Role, status: &Status) -> Trouble {
    let mistakes = trial::mistakes(status).filter(|_| role == Role::Consumer);
    mistakes.map_or_else(
        || Trouble::new(reason::CREATION_REFUSED, status.message.clone()),
        |mistakes| Trouble::new(reason::TEMPLATE_INVALID, Problem::list(&mistakes)),
    )
}

async fn delete(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: &Arc<Pod>,
    trouble: Option<Trouble>,
) -> Result<(), Failure> {
    if let Some(trouble) = trouble {
        let main = match role {
            Role::Provider => PROVIDER_CONTAINER,
            Role::Consumer => observed.instance.spec.main_container(),
        };
        if health::was_healthy(pod, main) {
            let uid = observed.instance.uid().unwrap_or_default();
            context.attempts.recovered(&uid, Task::Pod(role));
        }
        failed(context, observed, role, pod.uid().as_deref(), trouble);
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: pod.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let left = match pods(context, &observed.instance)
        .delete(&pod.name_any(), &params)
        .await
    {
        Ok(answer) => match answer.left() {
            Some(pod) => Slot::Ours(Arc::new(watched::pod(pod)?)),
            None => Slot::Free,
        },
        Err(kube::Error::Api(status)) if status.code == 404 => Slot::Free,
        Err(error) => return Err(error.into()),
    };
    *slot(observed, role) = left;
    Ok(())
}

async fn relabel(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    pod: &Pod,
) -> Result<Arc<Pod>, Failure> {
    let labels: serde_json::Map<String, Value> = role
        .labels(&instance.name_any())
        .into_iter()
        .map(|(key, value)| (key, json!(value)))
        .collect();
    let patch = json!({ "metadata": { "uid": pod.uid(), "labels": labels } });
    let labelled = pods(context, instance)
        .patch(&pod.name_any(), &ours(), &Patch::Merge(patch))
        .await?;
    Ok(Arc::new(watched::pod(labelled)?))
}

fn failed(context: &Context, observed: &mut Observed, role: Role, pod: Option<&str>, trouble: Trouble) {
    let uid = observed.instance.uid().unwrap_or_default();
    let generation = observed.instance.metadata.generation;
    let remaining: Duration =
        context
            .attempts
            .failed(&uid, Task::Pod(role), generation, pod, trouble.clone());
    let hold = Some(Hold { trouble, remaining });
    match role {
        Role::Provider => observed.provider_hold = hold,
        Role::Consumer => observed.consumer_hold = hold,
    }
}

fn slot(observed: &mut Observed, role: Role) -> &mut Slot {
    match role {
        Role::Provider => &mut observed.provider,
        Role::Consumer => &mut observed.consumer,
    }
}

fn pods(context: &Context, instance: &StoppableContainerInstance) -> Api<HeldPod> {
    Api::namespaced(context.client.clone(), &instance.namespace().unwrap_or_default())
}

fn instances(context: &Context, instance: &StoppableContainerInstance) -> Api<StoppableContainerInstance> {
    Api::namespaced(context.client.clone(), &instance.namespace().unwrap_or_default())
}

/// Parameters of the controller's patches.
pub fn ours() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PatchParams::default()
    }
}

/// Parameters of the controller's creations.
pub fn creating() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()),
        ..PostParams::default()
    }
}
