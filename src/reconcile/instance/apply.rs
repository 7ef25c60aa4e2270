/*!
Carries out a plan, and writes the status.

Every write names what it was decided on (UID and resourceVersion), so a decision made on an old
cache fails instead of doing harm, and is made again.
*/

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::{GivenUp, StoppableContainerInstance};

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::requests::{finalizer_patch, patch_params};
use crate::reconcile::context::{Backoff, Context, ReconcileError, Task};
use crate::reconcile::instance::plan::Action;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::Role;
use crate::selections;
use crate::selections::TrimmedPod;

mod change_over;
mod create;
mod delete;
mod resize;
mod status;

pub(super) use status::{ensure_newest, write_status};

/// The result of a plan.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The instance still exists; this is its state now.
    Present(Box<Observed>),
    /// The finalizer was removed.
    Released,
}

/// Carries out `actions` in order, and stops at the first that could not be decided on what was
/// observed.
///
/// A refused creation of a pod is not an error: the refusal becomes a condition.
pub(super) async fn apply(
    context: &Context,
    mut observed: Observed,
    actions: Vec<Action>,
) -> Result<Outcome, ReconcileError> {
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
            Action::GiveUp(why, consumer) => {
                if let Some(pod) = consumer {
                    // In the state that was seen: it has not started.
                    delete::delete(context, &mut observed, Role::Consumer, &pod, None).await?;
                }
                let (reason, message) = (why.reason, why.message);
                observed.given_up = Some(GivenUp { reason, message });
            }
            Action::Create(role, pod) => create::create(context, &mut observed, role, &pod).await?,
            Action::Relabel(role, pod) => {
                let pod = relabel(context, &observed.instance, role, &pod).await?;
                *slot(&mut observed, role) = Slot::Ours(pod);
            }
            Action::KeepNode(pod) => {
                let annotations = json!({ "annotations": context.opt_outs.keeping_node() });
                let pod = annotate(context, &observed.instance, &pod, annotations).await?;
                observed.provider = Slot::Ours(pod);
            }
            Action::Nominate(pod, node) => {
                let pod = change_over::nominate(context, &observed.instance, &pod, &node).await?;
                observed.consumer = Slot::Ours(pod);
            }
            // Finalizers of others may keep the placeholder for now.
            Action::Admit(_) if observed.placeholder.pod().is_some() => {}
            Action::Admit(pod) => {
                let pod = change_over::admit(context, &observed.instance, &pod).await?;
                observed.consumer = Slot::Ours(pod);
            }
            Action::Resize(pod, wanted) => resize::resize(context, &mut observed, &pod, &wanted).await?,
            Action::Delete(role, pod, cause) => {
                delete::delete(context, &mut observed, role, &pod, cause).await?;
            }
            Action::Discard(role, pod) => {
                *slot(&mut observed, role) = delete::discard(context, &observed.instance, role, &pod).await?;
            }
        }
    }
    Ok(Outcome::Present(Box::new(observed)))
}

/// The instance is gone: nothing about it is remembered.
pub(super) fn forget(context: &Context, instance: &StoppableContainerInstance) {
    let uid = instance.uid().unwrap_or_default();
    context.attempts.forget(&uid);
    context.created.forget(&uid);
    let namespace = instance.namespace().unwrap_or_default();
    context.own.forget_instance(&namespace, &instance.name_any());
}

async fn set_finalizer(
    context: &Context,
    instance: &Arc<StoppableContainerInstance>,
    present: bool,
) -> Result<Arc<StoppableContainerInstance>, ReconcileError> {
    let patch = finalizer_patch(instance.as_ref(), present);
    let written = instances(context, instance)
        .patch(&instance.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    Ok(context.own.instances.note(Arc::new(written)))
}

async fn relabel(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    pod: &Pod,
) -> Result<Arc<Pod>, ReconcileError> {
    let labels: serde_json::Map<String, Value> = role
        .labels(&instance.name_any())
        .into_iter()
        .map(|(key, value)| (key, json!(value)))
        .collect();
    annotate(context, instance, pod, json!({ "labels": labels })).await
}

/// Merges `change` into the metadata of this very pod.
async fn annotate(
    context: &Context,
    instance: &StoppableContainerInstance,
    pod: &Pod,
    change: Value,
) -> Result<Arc<Pod>, ReconcileError> {
    let mut metadata = change;
    metadata["uid"] = json!(pod.uid());
    let patch = json!({ "metadata": metadata });
    let written = pods(context, instance)
        .patch(&pod.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    Ok(context.own.pods.note(Arc::new(selections::pod(written)?)))
}

fn failed(context: &Context, observed: &mut Observed, role: Role, pod: Option<&str>, cause: Cause) {
    let uid = observed.instance.uid().unwrap_or_default();
    let generation = observed.instance.metadata.generation;
    let remaining: Duration = context
        .attempts
        .failed(&uid, Task::Pod(role), generation, pod, cause.clone());
    let backoff = Some(Backoff { cause, remaining });
    match role {
        Role::Provider => observed.provider_backoff = backoff,
        Role::Consumer => observed.consumer_backoff = backoff,
        Role::Placeholder => observed.placeholder_backoff = backoff,
    }
}

fn slot(observed: &mut Observed, role: Role) -> &mut Slot {
    match role {
        Role::Provider => &mut observed.provider,
        Role::Consumer => &mut observed.consumer,
        Role::Placeholder => &mut observed.placeholder,
    }
}

fn pods(context: &Context, instance: &StoppableContainerInstance) -> Api<TrimmedPod> {
    Api::namespaced(context.client.clone(), &instance.namespace().unwrap_or_default())
}

fn instances(context: &Context, instance: &StoppableContainerInstance) -> Api<StoppableContainerInstance> {
    Api::namespaced(context.client.clone(), &instance.namespace().unwrap_or_default())
}
