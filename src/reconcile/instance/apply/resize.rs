//! Change of CPU and memory of a consumer that runs.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::Cause;
use crate::reconcile::context::requests::patch_params;
use crate::reconcile::context::{Context, ReconcileError, Task};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::resize::Resize;

/// Answers that a repetition would get again: a quota, a limit range or a policy, a Kubernetes
/// without the subresource, and amounts that cannot change in place, such as those that change the
/// pod's QoS class.
const REFUSALS: [u16; 4] = [403, 404, 405, 422];

/// Changes the pod, and then notes in it what it is made of now.
///
/// A refusal is not an error: `RestartRequired` has it.
pub(super) async fn resize(
    context: &Context,
    observed: &mut Observed,
    pod: &Pod,
    wanted: &Resize,
) -> Result<(), ReconcileError> {
    let instance = &observed.instance;
    let patch = json!({ "metadata": { "uid": pod.uid() }, "spec": { "containers": wanted.containers } });
    let (patch, params, name) = (Patch::Strategic(patch), patch_params(), pod.name_any());
    let pods = super::pods(context, instance);
    match pods.patch_subresource("resize", &name, &params, &patch).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if REFUSALS.contains(&status.code) => {
            tracing::info!(
                name,
                code = status.code,
                message = status.message,
                "change of amounts refused"
            );
            let cause = Cause::new(reason::TEMPLATE_EDITED, status.message.clone());
            let uid = instance.uid().unwrap_or_default();
            let generation = instance.metadata.generation;
            context
                .attempts
                .failed(&uid, Task::Resize, generation, None, cause.clone());
            observed.resize_refused = Some(cause);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let annotations = json!({ "annotations": wanted.annotations });
    let pod = super::annotate(context, instance, pod, annotations).await?;
    observed.consumer = Slot::Ours(pod);
    let message = format!("CPU and memory of pod {name} were changed while it runs");
    observed.resized = Some(Cause::new(reason::RESIZED, message));
    Ok(())
}
