//! The instance that a StoppableContainer asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::names::{ANNOTATION_AVOID_NODES, FINALIZER, LABEL_MANAGED_BY, MANAGED_BY};
use stoppablecontainer_api::{
    StoppableContainer, StoppableContainerInstance, StoppableContainerInstanceSpec,
};

use crate::reconcile::conditions::Cause;
use crate::reconcile::pods::template;

/// The instance that a StoppableContainer wants.
pub(super) fn desired_instance(container: &StoppableContainer) -> StoppableContainerInstance {
    StoppableContainerInstance {
        metadata: ObjectMeta {
            name: Some(container.name_any()),
            namespace: container.namespace(),
            // That a later object of the name may take it over.
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
            annotations: avoided(container).map(|nodes| [(ANNOTATION_AVOID_NODES.to_owned(), nodes)].into()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: owner_reference(container).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: desired_spec(container),
        status: None,
    }
}

/// The nodes that were given up before the first start.
fn avoided(container: &StoppableContainer) -> Option<String> {
    let nodes = container.status.as_ref()?.given_up_nodes.as_ref()?;
    Some(nodes.nodes.join(","))
}

/// The reference that makes `container` the controller of its instance.
pub(super) fn owner_reference(container: &StoppableContainer) -> Option<OwnerReference> {
    let owner = container.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..owner
    })
}

pub(super) fn template_error(container: &StoppableContainer) -> Option<Cause> {
    template::of(&container.spec.template, &container.spec.provider)
}

pub(super) fn desired_spec(container: &StoppableContainer) -> StoppableContainerInstanceSpec {
    let spec = container.spec.clone();
    StoppableContainerInstanceSpec {
        stoppable_container_name: container.name_any(),
        running: spec.running,
        template: spec.template,
        provider: spec.provider,
        host_path_prefix: spec.host_path_prefix,
    }
}
