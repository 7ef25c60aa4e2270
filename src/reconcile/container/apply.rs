//! Carries out a plan: every write is made from reads past the caches (invariant I17).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::runtime::controller::Action as Next;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::conditions::{READY, reason};
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::ANNOTATION_RECOVERY;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::reconcile::conditions::Cause;
use crate::reconcile::container::containers;
use crate::reconcile::container::desired::{desired_instance, desired_spec, owner_reference};
use crate::reconcile::container::observe::{fresh_instance, newest};
use crate::reconcile::container::plan::{Action, given_up, is_given_up, moved_to};
use crate::reconcile::container::state::{Observed, Slot};
use crate::reconcile::context::requests::{finalizer_patch, patch_params, post_params};
use crate::reconcile::context::{Backoff, Context, ReconcileError, Task, events, requests};

/// How many nodes that were given up are remembered by name.
const MAX_NODES: usize = 5;

pub(super) async fn act(
    context: &Context,
    observed: &mut Observed,
    action: Action,
) -> Result<(), ReconcileError> {
    let namespace = observed.container.namespace().unwrap_or_default();
    let name = observed.container.name_any();
    let instances = Api::<StoppableContainerInstance>::namespaced(context.client.clone(), &namespace);
    match action {
        Action::AddFinalizer => {
            let patch = Patch::Merge(finalizer_patch(&*observed.container, true));
            let written = containers(context, &observed.container)
                .patch(&name, &patch_params(), &patch)
                .await?;
            observed.container = context.own.containers.note(Arc::new(written));
        }
        // The reconciliation ends with it, see there.
        Action::RemoveFinalizer => {}
        Action::Create => create(context, observed, &instances).await?,
        Action::Adopt(instance) => {
            let owners = instance.owner_references().iter().cloned();
            let container = on_newest(context, observed, Some(&instance)).await?;
            let owners = owners.chain(owner_reference(&container)).collect();
            observed.instance =
                replace_spec(context, &instances, &container, &instance, Some(owners)).await?;
            observed.container = container;
        }
        Action::Update(instance) => {
            let container = on_newest(context, observed, Some(&instance)).await?;
            observed.instance = replace_spec(context, &instances, &container, &instance, None).await?;
            observed.container = container;
        }
        Action::Decide(instance, answer) => {
            let annotations = json!({ ANNOTATION_RECOVERY: answer.to_string() });
            let patch = json!({ "metadata": { "uid": instance.uid(), "annotations": annotations } });
            let written = instances
                .patch(&name, &patch_params(), &Patch::Merge(patch))
                .await?;
            observed.instance = Slot::Ours(context.own.instances.note(Arc::new(written)));
        }
        Action::Reset(instance) => reset(context, observed, &instances, &instance).await?,
        Action::Move(instance, node) => {
            let container = on_newest(context, observed, Some(&instance)).await?;
            if moved_to(&container, &instance).as_ref() != Some(&node) {
                return Err(ReconcileError::Stale);
            }
            observed.container = container;
            move_to(context, observed, &instances, &instance, &node).await?;
        }
        Action::Replace(instance) => replace(context, observed, &instances, &instance).await?,
        Action::Delete(instance) => delete(context, observed, &instances, &instance).await?,
    }
    Ok(())
}

async fn delete(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
    instance: &StoppableContainerInstance,
) -> Result<(), ReconcileError> {
    let params = DeleteParams {
        // Read after the container was, see `observe`.
        preconditions: Some(Preconditions {
            uid: instance.uid(),
            resource_version: instance.resource_version(),
        }),
        ..DeleteParams::default()
    };
    match instances.delete(&instance.name_any(), &params).await {
        Ok(answer) => {
            observed.instance = answer.left().map_or(Slot::Free, |instance| {
                Slot::Ours(context.own.instances.note(Arc::new(instance)))
            });
        }
        Err(kube::Error::Api(status)) if status.code == 404 => observed.instance = Slot::Free,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Deletes an instance and its data, as the user asked. The status records it first: without that
/// the end of the instance would count as a loss if the annotation is removed meanwhile.
async fn reset(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
    instance: &Arc<StoppableContainerInstance>,
) -> Result<(), ReconcileError> {
    let container = on_newest(context, observed, Some(instance)).await?;
    if !is_given_up(&container, instance) {
        return Err(ReconcileError::Stale);
    }
    let uid = instance.uid();
    let status = container.status.as_ref();
    if status.and_then(|status| status.reset_instance_uid.as_ref()) == uid.as_ref() {
        observed.container = container;
    } else {
        let patch = json!({
            "metadata": { "resourceVersion": container.resource_version() },
            "status": { "resetInstanceUid": uid },
        });
        let written = containers(context, &container)
            .patch_status(&container.name_any(), &patch_params(), &Patch::Merge(patch))
            .await?;
        observed.container = context.own.containers.note(Arc::new(written));
    }
    delete(context, observed, instances, instance).await?;
    let message = format!(
        "the files of instance UID {} are deleted, as the annotation {ANNOTATION_RECOVERY} asks; the object then \
         begins with an empty filesystem",
        uid.unwrap_or_default()
    );
    tell(context, observed, &Cause::new(reason::RESETTING, message)).await;
    Ok(())
}

/// Publishes an event about the container.
async fn tell(context: &Context, observed: &Observed, what: &Cause) {
    let about = observed.container.object_ref(&());
    events::publish(context, &about, vec![events::normal(READY, what)]).await;
}

/// Makes `node` the node of an instance whose own does not exist. Nothing is lost if the files are
/// not there: the user can name another node as soon as this one is gone, or give the files up.
async fn move_to(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
    instance: &Arc<StoppableContainerInstance>,
    node: &str,
) -> Result<(), ReconcileError> {
    let old = instance
        .status
        .as_ref()
        .and_then(|status| status.node_name.clone())
        .unwrap_or_default();
    let nodes = Api::<Node>::all(context.client.clone());
    let is_back = nodes.get_metadata_opt(&old).await?.is_some();
    let exists = nodes.get_metadata_opt(node).await?.is_some();
    if is_back || !exists {
        return Ok(());
    }
    tracing::info!(name = instance.name_any(), old, node, "continues on another node");
    let patch = json!({
        "metadata": { "uid": instance.uid(), "resourceVersion": instance.resource_version() },
        "status": { "nodeName": node },
    });
    let written = instances
        .patch_status(&instance.name_any(), &patch_params(), &Patch::Merge(patch))
        .await?;
    observed.instance = Slot::Ours(context.own.instances.note(Arc::new(written)));
    let message = format!("continues on node {node}, which has the disk of node {old}");
    tell(context, observed, &Cause::new(reason::MOVED, message)).await;
    Ok(())
}

/// Deletes an instance that never started, so that the next one goes to another node. The status
/// records it first: without that the end of the instance would count as a loss.
async fn replace(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
    instance: &Arc<StoppableContainerInstance>,
) -> Result<(), ReconcileError> {
    let container = on_newest(context, observed, Some(instance)).await?;
    let (Some(why), Some(of)) = (given_up(instance), instance.uid()) else {
        return Ok(());
    };
    let mut nodes = container
        .status
        .as_ref()
        .and_then(|status| status.given_up_nodes.clone())
        .unwrap_or_default();
    if nodes.instance_uid == of {
        observed.container = container;
    } else {
        nodes.count = nodes.count.saturating_add(1);
        nodes.instance_uid.clone_from(&of);
        let node = instance
            .status
            .as_ref()
            .and_then(|status| status.node_name.clone());
        nodes.nodes.retain(|known| Some(known) != node.as_ref());
        nodes.nodes.extend(node);
        let excess = nodes.nodes.len().saturating_sub(MAX_NODES);
        nodes.nodes.drain(..excess);
        let patch = json!({
            "metadata": { "resourceVersion": container.resource_version() },
            "status": { "givenUpNodes": nodes },
        });
        let written = containers(context, &container)
            .patch_status(&container.name_any(), &patch_params(), &Patch::Merge(patch))
            .await?;
        observed.container = context.own.containers.note(Arc::new(written));
    }
    let message = format!(
        "node {} was given up before the first start, another one is tried: {}",
        nodes.nodes.last().map(String::as_str).unwrap_or_default(),
        why.message
    );
    let cause = Cause::new(reason::NODE_GIVEN_UP, message);
    let (uid, generation) = (
        observed.container.uid().unwrap_or_default(),
        observed.container.metadata.generation,
    );
    let remaining = context
        .attempts
        .failed(&uid, Task::Instance, generation, Some(&of), cause.clone());
    observed.backoff = Some(Backoff { cause, remaining });
    delete(context, observed, instances, instance).await
}

async fn create(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
) -> Result<(), ReconcileError> {
    let container = on_newest(context, observed, None).await?;
    let uid = container.uid().unwrap_or_default();
    match instances
        .create(&post_params(), &desired_instance(&container))
        .await
    {
        Ok(instance) => {
            context.attempts.succeeded(&uid, Task::Instance);
            observed.backoff = None;
            observed.instance = Slot::Ours(context.own.instances.note(Arc::new(instance)));
        }
        // An earlier reconciliation created it, and the cache does not show it yet; or another
        // client did.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            match Slot::of(fresh_instance(context, &container).await?, &container) {
                // It is gone again.
                Slot::Free => return Err(ReconcileError::Stale),
                slot => observed.instance = slot,
            }
        }
        Err(kube::Error::Api(status)) => {
            let cause = Cause::new(reason::CREATION_REFUSED, status.message.clone());
            let generation = container.metadata.generation;
            let remaining = context
                .attempts
                .failed(&uid, Task::Instance, generation, None, cause.clone());
            observed.backoff = Some(Backoff { cause, remaining });
        }
        Err(error) => return Err(error.into()),
    }
    observed.container = container;
    Ok(())
}

pub(super) async fn release(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Next, ReconcileError> {
    let patch = Patch::Merge(finalizer_patch(container, false));
    match containers(context, container)
        .patch(&container.name_any(), &patch_params(), &patch)
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    context.attempts.forget(&container.uid().unwrap_or_default());
    let namespace = container.namespace().unwrap_or_default();
    context.own.containers.forget(&namespace, &container.name_any());
    Ok(Next::await_change())
}

/// The newest state of the container, if the plan for `instance` is still right with it.
///
/// # Errors
/// [`ReconcileError::Stale`] if it is not.
async fn on_newest(
    context: &Context,
    observed: &Observed,
    instance: Option<&Arc<StoppableContainerInstance>>,
) -> Result<Arc<StoppableContainer>, ReconcileError> {
    let newest = newest(context, &observed.container).await?;
    let same = std::mem::discriminant(&Slot::of(instance.cloned(), &newest))
        == std::mem::discriminant(&observed.instance);
    if newest.metadata.deletion_timestamp.is_none() && same {
        Ok(newest)
    } else {
        Err(ReconcileError::Stale)
    }
}

/// Gives the instance the spec that `container`, read after it, wants. The spec is replaced as a
/// whole, so that what was taken out of the template goes from the copy too; and only in the state
/// that was read, since a later write to the instance may be made from a newer container.
///
/// With `owners` the instance gets these owner references too.
async fn replace_spec(
    context: &Context,
    instances: &Api<StoppableContainerInstance>,
    container: &StoppableContainer,
    instance: &StoppableContainerInstance,
    owners: Option<Vec<OwnerReference>>,
) -> Result<Slot, ReconcileError> {
    let (uid, version) = (instance.uid(), instance.resource_version());
    let spec = desired_spec(container);
    let uid = requests::operation("test", "/metadata/uid", &uid);
    // Not a test: the API server answers a resourceVersion that is not the newest with a conflict.
    let version = requests::operation("replace", "/metadata/resourceVersion", &version);
    let spec = requests::operation("replace", "/spec", &spec);
    let patch = match &owners {
        None => Json::of(&(uid, version, spec)),
        Some(owners) => {
            let owners = requests::operation("add", "/metadata/ownerReferences", owners);
            Json::of(&(uid, version, spec, owners))
        }
    };
    let patch = patch.map_err(ReconcileError::Patch)?;
    let written = requests::json_patch(&context.client, instances, &instance.name_any(), &patch).await?;
    Ok(Slot::Ours(context.own.instances.note(Arc::new(written))))
}
