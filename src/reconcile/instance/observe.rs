/*!
Reads everything that the reconciliation of an instance depends on: from the caches, and
from the API server what they cannot answer.

A cache lags behind the API server. Before a recorded pod counts as gone, the API
server itself is asked; and before the finalizer is taken off, about everything.
*/

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::trimmed::Trimmed;

use crate::reconcile::context::{Backoff, Context, Task};
use crate::reconcile::instance::state::{Observed, Slot, recorded};
use crate::reconcile::pods::{Role, health, node};
use crate::selections;
use crate::selections::TrimmedPod;

/// A wrapper that has its filesystem needs much less to find out that it cannot execute a program,
/// and the agent reports after two seconds why a wrapper does not get its filesystem.
const CONFIRMATION: Duration = Duration::from_secs(5);

/// Where the reads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// To the caches, and to the API server for what they cannot answer.
    Cached,
    /// To the API server alone: before the finalizer is removed.
    Fresh,
}

/// Observes everything that the plan of `instance` depends on.
///
/// # Errors
/// When the API server cannot be asked what the caches do not tell.
pub(super) async fn observe(
    context: &Context,
    instance: Arc<StoppableContainerInstance>,
) -> Result<Observed, kube::Error> {
    look(context, instance, Look::Cached).await
}

/// The same without the caches, the instance too. `None` if the instance is gone.
///
/// # Errors
/// When the API server cannot be asked.
pub(super) async fn observe_uncached(
    context: &Context,
    instance: &StoppableContainerInstance,
) -> Result<Option<Observed>, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let api = Api::<StoppableContainerInstance>::namespaced(context.client.clone(), &namespace);
    let found = api.get_opt(&instance.name_any()).await?;
    match found.filter(|found| found.uid() == instance.uid()) {
        Some(found) => Ok(Some(look(context, Arc::new(found), Look::Fresh).await?)),
        None => Ok(None),
    }
}

async fn look(
    context: &Context,
    instance: Arc<StoppableContainerInstance>,
    look: Look,
) -> Result<Observed, kube::Error> {
    let status = instance.status.clone().unwrap_or_default();
    let uid = instance.uid().unwrap_or_default();
    let backoff = |role| {
        context
            .attempts
            .backoff(&uid, Task::Pod(role), instance.metadata.generation)
    };
    let (provider_backoff, consumer_backoff) = (backoff(Role::Provider), backoff(Role::Consumer));
    let provider = slot(
        context,
        &instance,
        Role::Provider,
        look,
        provider_backoff.as_ref(),
    )
    .await?;
    let consumer = slot(
        context,
        &instance,
        Role::Consumer,
        look,
        consumer_backoff.as_ref(),
    )
    .await?;
    let at = [&provider, &consumer]
        .into_iter()
        .find_map(|slot| slot.pod().and_then(|pod| node(pod)));
    let agent_missing = at.is_some_and(|at| !context.caches.agent_registered(at));
    let home = status.node_name.as_deref().or(at);
    let node_unreachable = home.and_then(|name| context.caches.node_unreachable(name));
    // A container that was reported ready has shown that it runs, however it ended before.
    let called_ready = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == CONSUMER_READY && condition.status == "True");
    let unconfirmed_restart = consumer.pod().filter(|_| !called_ready).and_then(|pod| {
        let (container, _) = health::unconfirmed(pod, instance.spec.main_container())?;
        Some(CONFIRMATION.saturating_sub(context.attempts.seen_for(&uid, container)))
    });
    let unbound = matches!(provider, Slot::Free) && status.node_name.is_none();
    let node_gone = match status.node_name.as_deref() {
        Some(name) => {
            !context.caches.node_exists(name)
                && (look == Look::Cached || !node_is_there(context, name).await?)
        }
        None => false,
    };
    Ok(Observed {
        agent_missing,
        node_not_ready: home.and_then(|name| context.caches.node_not_ready(name)),
        node_unreachable,
        unconfirmed_restart,
        provider,
        consumer,
        node_gone,
        exclusive_claims: if unbound && look == Look::Cached {
            exclusive_claims(context, &instance).await?
        } else {
            BTreeSet::new()
        },
        template_check: status.template_check,
        provider_backoff,
        consumer_backoff,
        instance,
    })
}

async fn slot(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    look: Look,
    backoff: Option<&Backoff>,
) -> Result<Slot, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let name = role.pod_name(&instance.name_any());
    let recorded = recorded(instance, role).is_some();
    let created = context.created.pod(&instance.uid().unwrap_or_default(), role);
    let of = |pod| Slot::of(pod, instance, role, created.as_deref());
    if look == Look::Cached {
        match context.caches.pod(&namespace, &name).map(of) {
            Some(slot @ Slot::Ours(_)) => return Ok(slot),
            // The record may be of a pod that the cache has not seen yet.
            Some(_) if recorded => {}
            Some(slot) => return Ok(slot),
            None => {
                // A pod without our label is outside of the cache. Its owner is asked about again
                // when the wait is over.
                if let Some(backoff) = backoff
                    .filter(|h| h.cause.reason == reason::NAME_CONFLICT && h.remaining > Duration::ZERO)
                {
                    return Ok(Slot::Taken(backoff.cause.message.clone()));
                }
                if !recorded {
                    return Ok(Slot::Free);
                }
            }
        }
    }
    let found = Api::<TrimmedPod>::namespaced(context.client.clone(), &namespace)
        .get_opt(&name)
        .await?;
    let found = found.map(selections::pod).transpose()?;
    Ok(found.map_or(Slot::Free, |pod| of(Arc::new(pod))))
}

async fn node_is_there(context: &Context, name: &str) -> Result<bool, kube::Error> {
    let found = Api::<Node>::all(context.client.clone())
        .get_metadata_opt(name)
        .await?;
    Ok(found.is_some())
}

/// The template's claims that only one pod may use: listing them in the provider would keep the
/// consumer from them.
async fn exclusive_claims(
    context: &Context,
    instance: &StoppableContainerInstance,
) -> Result<BTreeSet<String>, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let api = Api::<Trimmed<PersistentVolumeClaim, selections::Claims>>::namespaced(
        context.client.clone(),
        &namespace,
    );
    let mut exclusive = BTreeSet::new();
    for claim in claims(instance) {
        let modes = api
            .get_opt(&claim)
            .await?
            .and_then(|found| found.into_object().ok()?.spec?.access_modes);
        if modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")) {
            exclusive.insert(claim);
        }
    }
    Ok(exclusive)
}

/// Names of the claims in the template; none if that cannot be worked on.
fn claims(instance: &StoppableContainerInstance) -> Vec<String> {
    let spec = instance
        .spec
        .template
        .decode()
        .ok()
        .and_then(|template| template.spec);
    let volumes = spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let claims = volumes
        .into_iter()
        .filter_map(|volume| volume.persistent_volume_claim);
    claims.map(|claim| claim.claim_name).collect()
}
