/*!
A look at everything that a pass over an instance depends on: the caches, and the
few reads that they cannot answer.

A cache lags behind the API server. Before a recorded pod counts as gone, the API
server itself is asked.
*/

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};

use super::attempts::{Hold, Task};
use super::plan::{Observed, Slot};
use super::pods::{Role, node};
use super::{Context, health};

/// A wrapper that has its filesystem needs much less to find out that it cannot execute a program, and what keeps it
/// from its filesystem the agent says after two seconds.
const DOUBT: Duration = Duration::from_secs(5);

/// Looks at everything that the plan of `instance` depends on.
///
/// # Errors
/// When the API server cannot be asked what the caches do not tell.
pub async fn observe(
    context: &Context,
    instance: Arc<StoppableContainerInstance>,
) -> Result<Observed, kube::Error> {
    let status = instance.status.clone().unwrap_or_default();
    let uid = instance.uid().unwrap_or_default();
    let hold = |role| {
        context
            .attempts
            .hold(&uid, Task::Pod(role), instance.metadata.generation)
    };
    let (provider_hold, consumer_hold) = (hold(Role::Provider), hold(Role::Consumer));
    let provider = slot(
        context,
        &instance,
        Role::Provider,
        status.provider_pod_uid.is_some(),
        provider_hold.as_ref(),
    )
    .await?;
    let consumer = slot(
        context,
        &instance,
        Role::Consumer,
        status.consumer_pod_uid.is_some(),
        consumer_hold.as_ref(),
    )
    .await?;
    let at = [&provider, &consumer]
        .into_iter()
        .find_map(|slot| slot.pod().and_then(|pod| node(pod)));
    let agent_missing = at.is_some_and(|at| !context.caches.agent_registered(at));
    let home = status.node_name.as_deref().or(at);
    let node_silent = home.and_then(|name| context.caches.node_silent(name));
    // What was called ready has shown that it runs, however it ended before.
    let called_ready = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == CONSUMER_READY && condition.status == "True");
    let doubted = consumer.pod().filter(|_| !called_ready).and_then(|pod| {
        let (container, _) = health::doubtful(pod, instance.spec.main_container())?;
        Some(DOUBT.saturating_sub(context.attempts.seen_for(&uid, container)))
    });
    let unbound = matches!(provider, Slot::Free) && status.node_name.is_none();
    Ok(Observed {
        agent_missing,
        node_unready: home.and_then(|name| context.caches.node_unready(name)),
        node_silent,
        doubted,
        provider,
        consumer,
        node_gone: status
            .node_name
            .is_some_and(|name| !context.caches.node_exists(&name)),
        exclusive_claims: if unbound {
            exclusive_claims(context, &instance).await?
        } else {
            BTreeSet::new()
        },
        provider_hold,
        consumer_hold,
        instance,
    })
}

async fn slot(
    context: &Context,
    instance: &StoppableContainerInstance,
    role: Role,
    recorded: bool,
    hold: Option<&Hold>,
) -> Result<Slot, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let name = role.pod_name(&instance.name_any());
    if let Some(pod) = context.caches.pod(&namespace, &name) {
        return Ok(Slot::of(pod, instance));
    }
    // A pod without our label is outside of the cache. Its owner is asked about again when the wait is over.
    if let Some(hold) =
        hold.filter(|h| h.trouble.reason == reason::NAME_CONFLICT && h.remaining > Duration::ZERO)
    {
        return Ok(Slot::Taken(hold.trouble.message.clone()));
    }
    if recorded {
        let found = Api::<Pod>::namespaced(context.client.clone(), &namespace)
            .get_opt(&name)
            .await?;
        return Ok(found.map_or(Slot::Free, |pod| Slot::of(Arc::new(pod), instance)));
    }
    Ok(Slot::Free)
}

/// The template's claims that only one pod may use: listing them in the provider would keep the consumer from them.
async fn exclusive_claims(
    context: &Context,
    instance: &StoppableContainerInstance,
) -> Result<BTreeSet<String>, kube::Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &namespace);
    let volumes = instance
        .spec
        .template
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut exclusive = BTreeSet::new();
    for claim in volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        let modes = api
            .get_opt(&claim.claim_name)
            .await?
            .and_then(|found| found.spec?.access_modes);
        if modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")) {
            exclusive.insert(claim.claim_name.clone());
        }
    }
    Ok(exclusive)
}
