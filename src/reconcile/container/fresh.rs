/*!
Reads of a container and its instance past the caches, and the write that is made
from them (invariant I17).
*/

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use super::slot::{self, Slot};
use super::{Observed, containers, instance_spec};
use crate::reconcile::{Context, Failure, context::requests};

/// The cache is enough if it shows that the instance is ours, or if it has no instance and none was ever recorded.
pub(crate) async fn cached_slot(context: &Context, container: &StoppableContainer) -> Result<Slot, Failure> {
    let namespace = container.namespace().unwrap_or_default();
    let reference = ObjectRef::new(&container.name_any()).within(&namespace);
    let cached = context.caches.instances.get(&reference);
    if cached.is_none() && slot::recorded(container).is_none() {
        return Ok(Slot::Free);
    }
    match Slot::of(cached, container) {
        ours @ Slot::Ours(_) => Ok(ours),
        _ => Ok(Slot::of(fresh_instance(context, container).await?, container)),
    }
}

/// The object with the name of the instance, as the API server has it.
pub(crate) async fn fresh_instance(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Option<Arc<StoppableContainerInstance>>, Failure> {
    let namespace = container.namespace().unwrap_or_default();
    let api = Api::<StoppableContainerInstance>::namespaced(context.client.clone(), &namespace);
    Ok(api.get_opt(&container.name_any()).await?.map(Arc::new))
}

/// The container as the API server has it.
///
/// # Errors
/// [`Failure::Stale`] if that is another object of the name.
pub(crate) async fn newest(
    context: &Context,
    container: &StoppableContainer,
) -> Result<Arc<StoppableContainer>, Failure> {
    let newest = containers(context, container).get(&container.name_any()).await?;
    if newest.metadata.uid == container.metadata.uid {
        Ok(Arc::new(newest))
    } else {
        Err(Failure::Stale)
    }
}

/// The newest state of the container, if the plan for `instance` is still right with it.
///
/// # Errors
/// [`Failure::Stale`] if it is not.
pub(crate) async fn on_newest(
    context: &Context,
    observed: &Observed,
    instance: Option<&Arc<StoppableContainerInstance>>,
) -> Result<Arc<StoppableContainer>, Failure> {
    let newest = newest(context, &observed.container).await?;
    let same = std::mem::discriminant(&Slot::of(instance.cloned(), &newest))
        == std::mem::discriminant(&observed.instance);
    if newest.metadata.deletion_timestamp.is_none() && same {
        Ok(newest)
    } else {
        Err(Failure::Stale)
    }
}

/// Gives the instance the spec that `container`, read after it, wants. The spec is replaced as a whole, so that what was
/// taken out of the template goes from the copy too; and only in the state that was read, since a later write to the
/// instance may be made from a newer container.
///
/// With `owners` the instance gets these owner references too.
pub(crate) async fn replace_spec(
    context: &Context,
    instances: &Api<StoppableContainerInstance>,
    container: &StoppableContainer,
    instance: &StoppableContainerInstance,
    owners: Option<Vec<OwnerReference>>,
) -> Result<Slot, Failure> {
    let (uid, version) = (instance.uid(), instance.resource_version());
    let spec = instance_spec(container);
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
    let patch = patch.map_err(Failure::Patch)?;
    let written = requests::json_patch(&context.client, instances, &instance.name_any(), &patch).await?;
    Ok(Slot::Ours(Arc::new(written)))
}
