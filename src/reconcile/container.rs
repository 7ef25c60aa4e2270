/*!
The outer half: a StoppableContainer has one instance of the same name with a full
copy of its spec, and shows the instance's status as its own.

What is written to an instance is made from a fresh read of the container, on the
resourceVersion of an instance that was read before that. So a leader or a cache
that is behind never brings back an older wish (invariant I17). A container that is
being deleted is worked on by fresh reads alone.
*/

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ObjectMeta, Patch, Preconditions};
use kube::runtime::controller::Action as Next;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, READY, reason};
use stoppablecontainer_api::names::{ANNOTATION_RECOVERY, FINALIZER, LABEL_MANAGED_BY, MANAGED_BY};
use stoppablecontainer_api::{
    KeptFilesystem, Phase, RecoveryAnswer, StoppableContainer, StoppableContainerInstance,
    StoppableContainerInstanceSpec, StoppableContainerStatus,
};

use crate::reconcile::context::attempts::{Hold, Task};
use crate::reconcile::instance::apply::{creating, finalizer_patch, ours};
use crate::reconcile::instance::status::{Verdict, conditions};
use crate::reconcile::pods::Trouble;
use crate::reconcile::{Context, Failure, context::events, instance::template};

mod fresh;
mod slot;

use fresh::{cached_slot, fresh_instance, newest, on_newest, replace_spec};
pub use slot::Slot;

/// Finalizer of `kubectl delete --cascade=orphan`: the garbage collector cuts the instance loose before it takes it
/// off.
const ORPHAN: &str = "orphan";

/// Everything that a pass over a StoppableContainer looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object as last seen.
    pub container: Arc<StoppableContainer>,
    /// What has the instance's name.
    pub instance: Slot,
    /// The last failure to create the instance.
    pub hold: Option<Hold>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put our finalizer on the object, before anything is made for it.
    AddFinalizer,
    /// Take it off: the instance is gone.
    RemoveFinalizer,
    /// Create the instance.
    Create,
    /// Make an instance that has no owner ours, with the present spec.
    Adopt(Arc<StoppableContainerInstance>),
    /// Give the instance the present spec.
    Update(Arc<StoppableContainerInstance>),
    /// Tell the instance what the user decided about a failure.
    Decide(Arc<StoppableContainerInstance>, RecoveryAnswer),
    /// Delete the instance, and with it the data.
    Delete(Arc<StoppableContainerInstance>),
}

/// One pass: look, plan, act, report.
pub async fn pass(container: Arc<StoppableContainer>, context: Arc<Context>) -> Result<Next, Failure> {
    let Some(mut observed) = observe(&context, container).await? else {
        return Ok(Next::await_change());
    };
    for action in plan(&observed) {
        if action == Action::RemoveFinalizer {
            return release(&context, &observed.container).await;
        }
        act(&context, &mut observed, action).await?;
    }
    let status = status(&observed, Timestamp::now());
    write_status(&context, &observed.container, &status).await?;
    context
        .attempts
        .succeeded(&observed.container.uid().unwrap_or_default(), Task::Pass);
    let wait = observed
        .hold
        .filter(|_| matches!(observed.instance, Slot::Free))
        .map(|hold| hold.remaining);
    Ok(wait.map_or_else(Next::await_change, Next::requeue))
}

/// What there is; `None` if the container is gone.
async fn observe(context: &Context, container: Arc<StoppableContainer>) -> Result<Option<Observed>, Failure> {
    let deleting = container.metadata.deletion_timestamp.is_some();
    let (container, instance) = if deleting {
        // In this order: an orphan deletion cuts the instance loose before it takes its finalizer off the container.
        match newest(context, &container).await {
            Ok(container) => {
                let found = fresh_instance(context, &container).await?;
                let slot = Slot::of(found, &container);
                (container, slot)
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        }
    } else {
        let slot = cached_slot(context, &container).await?;
        (container, slot)
    };
    let uid = container.uid().unwrap_or_default();
    let hold = context
        .attempts
        .hold(&uid, Task::Instance, container.metadata.generation);
    Ok(Some(Observed {
        container,
        instance,
        hold,
    }))
}

/// The next steps for a StoppableContainer, in order.
pub fn plan(observed: &Observed) -> Vec<Action> {
    let finalizers = observed.container.finalizers();
    let ours = finalizers.iter().any(|f| f == FINALIZER);
    if observed.container.metadata.deletion_timestamp.is_some() {
        return match &observed.instance {
            _ if !ours || finalizers.iter().any(|f| f == ORPHAN) => Vec::new(),
            Slot::Ours(instance) if instance.metadata.deletion_timestamp.is_some() => Vec::new(),
            Slot::Ours(instance) => vec![Action::Delete(Arc::clone(instance))],
            Slot::Free | Slot::Orphan(_) | Slot::Lost(_) | Slot::Taken(_) => vec![Action::RemoveFinalizer],
        };
    }
    let mut actions = Vec::new();
    if !ours {
        actions.push(Action::AddFinalizer);
    }
    match &observed.instance {
        // The status says why; an instance would not help, as no pod could be made from it.
        Slot::Free if template_trouble(&observed.container).is_some() => {}
        Slot::Free
            if observed
                .hold
                .as_ref()
                .is_none_or(|hold| hold.remaining == Duration::ZERO) =>
        {
            actions.push(Action::Create);
        }
        Slot::Ours(instance) if instance.metadata.deletion_timestamp.is_none() => {
            if instance.spec != instance_spec(&observed.container) {
                actions.push(Action::Update(Arc::clone(instance)));
            }
            let decided = RecoveryAnswer::of(&*observed.container);
            if let Some(answer) = decided.filter(|answer| awaited(instance, answer)) {
                actions.push(Action::Decide(Arc::clone(instance), answer));
            }
        }
        Slot::Orphan(instance) => actions.push(Action::Adopt(Arc::clone(instance))),
        Slot::Free | Slot::Ours(_) | Slot::Lost(_) | Slot::Taken(_) => {}
    }
    actions
}

/// Whether an answer is to what the instance asks now, and has not been passed on. What an old annotation says stays
/// where it is.
fn awaited(instance: &StoppableContainerInstance, answer: &RecoveryAnswer) -> bool {
    let filesystem = instance
        .status
        .as_ref()
        .and_then(|status| status.filesystem.as_ref());
    let offer = filesystem.and_then(|filesystem| filesystem.recovery.as_ref());
    offer.is_some_and(|offer| offer.taken(answer).is_some())
        && RecoveryAnswer::of(instance).as_ref() != Some(answer)
}

/// The instance that a StoppableContainer wants.
pub fn instance_of(container: &StoppableContainer) -> StoppableContainerInstance {
    StoppableContainerInstance {
        metadata: ObjectMeta {
            name: Some(container.name_any()),
            namespace: container.namespace(),
            // That a later object of the name may take it over.
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: owner_of(container).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: instance_spec(container),
        status: None,
    }
}

/// The reference that makes `container` the controller of its instance.
fn owner_of(container: &StoppableContainer) -> Option<OwnerReference> {
    let owner = container.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..owner
    })
}

fn template_trouble(container: &StoppableContainer) -> Option<Trouble> {
    template::of(&container.spec.template, &container.spec.provider)
}

fn instance_spec(container: &StoppableContainer) -> StoppableContainerInstanceSpec {
    let spec = container.spec.clone();
    StoppableContainerInstanceSpec {
        stoppable_container_name: container.name_any(),
        running: spec.running,
        template: spec.template,
        provider: spec.provider,
        host_path_prefix: spec.host_path_prefix,
    }
}

async fn act(context: &Context, observed: &mut Observed, action: Action) -> Result<(), Failure> {
    let namespace = observed.container.namespace().unwrap_or_default();
    let name = observed.container.name_any();
    let instances = Api::<StoppableContainerInstance>::namespaced(context.client.clone(), &namespace);
    match action {
        Action::AddFinalizer => {
            let patch = Patch::Merge(finalizer_patch(&*observed.container, true));
            let written = containers(context, &observed.container)
                .patch(&name, &ours(), &patch)
                .await?;
            observed.container = Arc::new(written);
        }
        // The pass ends with it, see there.
        Action::RemoveFinalizer => {}
        Action::Create => create(context, observed, &instances).await?,
        Action::Adopt(instance) => {
            let owners = instance.owner_references().iter().cloned();
            let container = on_newest(context, observed, Some(&instance)).await?;
            let owners = owners.chain(owner_of(&container)).collect();
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
            let written = instances.patch(&name, &ours(), &Patch::Merge(patch)).await?;
            observed.instance = Slot::Ours(Arc::new(written));
        }
        Action::Delete(instance) => {
            let params = DeleteParams {
                // Read after the container was, see `observe`.
                preconditions: Some(Preconditions {
                    uid: instance.uid(),
                    resource_version: instance.resource_version(),
                }),
                ..DeleteParams::default()
            };
            match instances.delete(&name, &params).await {
                Ok(answer) => {
                    observed.instance = answer.left().map_or(Slot::Free, |i| Slot::Ours(Arc::new(i)));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => observed.instance = Slot::Free,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn create(
    context: &Context,
    observed: &mut Observed,
    instances: &Api<StoppableContainerInstance>,
) -> Result<(), Failure> {
    let container = on_newest(context, observed, None).await?;
    let uid = container.uid().unwrap_or_default();
    match instances.create(&creating(), &instance_of(&container)).await {
        Ok(instance) => {
            context.attempts.succeeded(&uid, Task::Instance);
            observed.hold = None;
            observed.instance = Slot::Ours(Arc::new(instance));
        }
        // Not in the cache yet: the watch brings it.
        Err(kube::Error::Api(status)) if status.reason != "AlreadyExists" => {
            let trouble = Trouble::new(reason::CREATION_REFUSED, status.message.clone());
            let generation = container.metadata.generation;
            let remaining = context
                .attempts
                .failed(&uid, Task::Instance, generation, None, trouble.clone());
            observed.hold = Some(Hold { trouble, remaining });
        }
        Err(error) => return Err(error.into()),
    }
    observed.container = container;
    Ok(())
}

async fn release(context: &Context, container: &StoppableContainer) -> Result<Next, Failure> {
    let patch = Patch::Merge(finalizer_patch(container, false));
    match containers(context, container)
        .patch(&container.name_any(), &ours(), &patch)
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    context.attempts.forget(&container.uid().unwrap_or_default());
    Ok(Next::await_change())
}

/// The status that `observed` deserves. It speaks of the container's present generation only once the instance has
/// the present spec and its own status speaks of that.
pub fn status(observed: &Observed, now: Timestamp) -> StoppableContainerStatus {
    let container = &observed.container;
    let old = container.status.clone().unwrap_or_default();
    let generation = container.metadata.generation;
    let without_instance = |phase, verdict| StoppableContainerStatus {
        phase: Some(phase),
        node_name: None,
        instance_name: None,
        instance_uid: old.instance_uid.clone(),
        filesystem: None,
        observed_generation: generation,
        conditions: conditions(&old.conditions, [(READY, verdict)], generation, now),
    };
    let deleting = container.metadata.deletion_timestamp.is_some();
    let name = container.name_any();
    let instance = match &observed.instance {
        Slot::Ours(instance) => instance,
        Slot::Free | Slot::Orphan(_) | Slot::Lost(_) | Slot::Taken(_) if deleting => {
            return without_instance(
                Phase::Pending,
                Verdict::no(reason::DELETING, "the object is being deleted"),
            );
        }
        Slot::Free if let Some(why) = template_trouble(container) => {
            return without_instance(Phase::Failed, Verdict::because(why));
        }
        Slot::Free => {
            let verdict = observed.hold.as_ref().map_or_else(
                || {
                    Verdict::no(
                        reason::STARTING,
                        format!("instance {name} has still to be created"),
                    )
                },
                |hold| Verdict::because(hold.trouble.clone()),
            );
            return without_instance(Phase::Pending, verdict);
        }
        Slot::Orphan(_) => {
            let message = format!("instance {name} has still to be taken over");
            return without_instance(Phase::Pending, Verdict::no(reason::STARTING, message));
        }
        Slot::Lost(message) => {
            let verdict = Verdict::no(reason::FILESYSTEM_LOST, message.clone());
            let verdicts = [(READY, verdict.clone()), (FILESYSTEM_READY, verdict.clone())];
            return StoppableContainerStatus {
                conditions: conditions(&old.conditions, verdicts, generation, now),
                ..without_instance(Phase::Failed, verdict)
            };
        }
        Slot::Taken(message) => {
            return without_instance(Phase::Failed, Verdict::no(reason::NAME_CONFLICT, message.clone()));
        }
    };
    let inner = instance.status.clone().unwrap_or_default();
    let current = instance.spec == instance_spec(container)
        && inner.observed_generation == instance.metadata.generation;
    let observed_generation = if current {
        generation
    } else {
        old.observed_generation
    };
    let mirrored: Vec<_> = inner
        .conditions
        .into_iter()
        .map(|condition| Condition {
            observed_generation,
            ..condition
        })
        .collect();
    let starting = || {
        let verdict = Verdict::no(reason::STARTING, format!("instance {name} was created"));
        conditions(&old.conditions, [(READY, verdict)], observed_generation, now)
    };
    StoppableContainerStatus {
        phase: Some(inner.phase.unwrap_or(Phase::Pending)),
        node_name: inner.node_name,
        instance_name: Some(name.clone()),
        instance_uid: instance.uid(),
        filesystem: inner.filesystem.map(|filesystem| KeptFilesystem {
            usage: filesystem.usage,
        }),
        observed_generation,
        conditions: if mirrored.is_empty() { starting() } else { mirrored },
    }
}

async fn write_status(
    context: &Context,
    container: &Arc<StoppableContainer>,
    status: &StoppableContainerStatus,
) -> Result<(), Failure> {
    if container.status.as_ref() == Some(status) {
        return Ok(());
    }
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        // A merge patch leaves what it does not name.
        if let Some(filesystem) = fields.get_mut("filesystem").and_then(Value::as_object_mut) {
            filesystem.entry("usage").or_insert(Value::Null);
        }
        for absent in [
            "nodeName",
            "instanceName",
            "instanceUid",
            "observedGeneration",
            "filesystem",
        ] {
            fields.entry(absent).or_insert(Value::Null);
        }
    }
    let patch = json!({ "metadata": { "resourceVersion": container.resource_version() }, "status": fields });
    let written = containers(context, container)
        .patch_status(&container.name_any(), &ours(), &Patch::Merge(patch))
        .await?;
    let before = container
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    events::changes(context, written.object_ref(&()), before, &status.conditions).await;
    Ok(())
}

fn containers(context: &Context, container: &StoppableContainer) -> Api<StoppableContainer> {
    Api::namespaced(context.client.clone(), &container.namespace().unwrap_or_default())
}
