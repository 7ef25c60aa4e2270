/*!
Reads everything that the reconciliation of an instance depends on: from the caches, and from the
API server what they cannot answer.

A cache lags behind the API server. Before a recorded pod counts as gone, the API server itself is
asked; and before the finalizer is taken off, about everything.
*/

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};

use crate::reconcile::context::{Backoff, Context, Task};
use crate::reconcile::instance::state::first_node::{self, Grace};
use crate::reconcile::instance::state::{Observed, Slot, recorded};
use crate::reconcile::pods::{NodeSelector, Role, avoided, health, node};
use crate::selections;
use crate::selections::TrimmedPod;
use crate::user_namespaces::OwnUsers;

/// A wrapper that has its filesystem needs much less to find out that it cannot execute a program,
/// and the agent reports after two seconds why a wrapper does not get its filesystem.
const CONFIRMATION: Duration = Duration::from_secs(5);

/// What is seen while the first node is suitable, so that a wait for it begins anew. A container
/// never has this as its ID.
const SUITABLE: Grace = Grace("suitable", Duration::ZERO);

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
    let [provider_backoff, consumer_backoff, placeholder_backoff] =
        [Role::Provider, Role::Consumer, Role::Placeholder].map(backoff);
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
    // It holds no data, so a look at the cache does.
    let (role, cached) = (Role::Placeholder, Look::Cached);
    let placeholder = slot(context, &instance, role, cached, placeholder_backoff.as_ref()).await?;
    let at = [&provider, &consumer, &placeholder]
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
    let node_gone = match status.node_name.as_deref() {
        // A cache that is behind does not have a node that is new.
        Some(name) => !context.caches.node_exists(name) && !node_is_there(context, name).await?,
        None => false,
    };
    let users = OwnUsers::of_template(&instance.spec.template);
    let users_obstacle = |name: &str| context.caches.users_obstacle(name, users?);
    let other_nodes = status.never_started && {
        let given_up = |name: &str| avoided(&instance).any(|node| node == name);
        let selector = NodeSelector::of_template(&instance.spec.template);
        context.caches.any_node(|node| {
            let name = node.name_any();
            let is_other = home != Some(name.as_str()) && !given_up(&name);
            is_other && selector.admits(node) && users.and_then(|users| users.obstacle(node)).is_none()
        })
    };
    let mut observed = Observed {
        agent_missing,
        users_obstacle: home.and_then(users_obstacle),
        node_cordoned: home.is_some_and(|name| context.caches.node_cordoned(name)),
        node_not_ready: home.and_then(|name| context.caches.node_not_ready(name)),
        node_unreachable,
        unconfirmed_restart,
        provider,
        consumer,
        placeholder,
        node_gone,
        other_nodes,
        unsuitable: None,
        given_up: None,
        resize_refused: context
            .attempts
            .backoff(&uid, Task::Resize, instance.metadata.generation)
            .map(|refused| refused.cause),
        resized: None,
        template_check: status.template_check.clone(),
        provider_backoff,
        consumer_backoff,
        placeholder_backoff,
        instance,
    };
    let unsuitable = first_node::unsuitable(&observed);
    if unsuitable.is_some() || status.never_started {
        let Grace(what, longest) = unsuitable
            .as_ref()
            .map_or(SUITABLE, |unsuitable| unsuitable.grace);
        let seen = context.attempts.seen_for(&uid, what);
        observed.unsuitable = unsuitable.map(|unsuitable| Backoff {
            remaining: longest.saturating_sub(seen),
            cause: unsuitable.cause,
        });
    }
    Ok(observed)
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
    let uid = instance.uid().unwrap_or_default();
    let created = context.created.pod(&uid, role);
    let of = |pod| Slot::of(pod, instance, role, created.as_deref());
    if look == Look::Cached {
        let is_gone = |pod: &Arc<Pod>| {
            context
                .created
                .is_gone(&uid, role, &pod.uid().unwrap_or_default())
        };
        let cached = context.caches.pod(&namespace, &name);
        let cached = cached.map(|pod| context.own.pods.or_later(pod));
        match cached.filter(|pod| !is_gone(pod)).map(of) {
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
