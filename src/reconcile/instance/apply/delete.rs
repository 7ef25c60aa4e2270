//! Deletion of a pod, with preconditions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::PROVIDER_CONTAINER;

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::{Context, ReconcileError, Task};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{Role, health};
use crate::selections;

pub(super) async fn delete(
    context: &Context,
    observed: &mut Observed,
    role: Role,
    pod: &Arc<Pod>,
    cause: Option<Cause>,
) -> Result<(), ReconcileError> {
    if let Some(cause) = cause {
        let main = match role {
            Role::Provider => PROVIDER_CONTAINER,
            Role::Consumer | Role::Placeholder => observed.instance.spec.main_container(),
        };
        if health::was_healthy(pod, main) {
            let uid = observed.instance.uid().unwrap_or_default();
            context.attempts.recovered(&uid, Task::Pod(role));
        }
        super::failed(context, observed, role, pod.uid().as_deref(), cause);
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: pod.resource_version(),
        }),
        // No container of it runs.
        grace_period_seconds: (role == Role::Placeholder).then_some(0),
        ..DeleteParams::default()
    };
    let left = match super::pods(context, &observed.instance)
        .delete(&pod.name_any(), &params)
        .await
    {
        Ok(answer) => {
            if let Some(pod) = answer.left() {
                Slot::Ours(context.own.pods.note(Arc::new(selections::pod(pod)?)))
            } else {
                note_gone(context, &observed.instance, role, pod);
                Slot::Free
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            note_gone(context, &observed.instance, role, pod);
            Slot::Free
        }
        Err(error) => return Err(error.into()),
    };
    *super::slot(observed, role) = left;
    Ok(())
}

/// Deletes a pod that is not recorded. Its present content does not matter, only its UID.
pub(super) async fn discard(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    pod: &Pod,
) -> Result<Slot, ReconcileError> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match super::pods(context, instance)
        .delete(&pod.name_any(), &params)
        .await
    {
        Ok(answer) => {
            if let Some(pod) = answer.left() {
                let pod = context.own.pods.note(Arc::new(selections::pod(pod)?));
                Ok(Slot::Unrecorded(pod))
            } else {
                note_gone(context, instance, role, pod);
                Ok(Slot::Free)
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            note_gone(context, instance, role, pod);
            Ok(Slot::Free)
        }
        Err(error) => Err(error.into()),
    }
}

fn note_gone(context: &Context, instance: &StoppableContainerInstance, role: Role, pod: &Pod) {
    let (of, uid) = (instance.uid().unwrap_or_default(), pod.uid().unwrap_or_default());
    context.created.note_gone(&of, role, &uid);
}
