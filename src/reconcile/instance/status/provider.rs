//! The condition ProviderReady.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::{Trouble, Verdict};
use crate::reconcile::instance::plan::replacement;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{Role, leaving, node, running, trouble};

pub(super) fn provider_verdict(observed: &Observed) -> Verdict {
    let name = Role::Provider.pod_name(&observed.instance.name_any());
    let pod = match &observed.provider {
        Slot::Taken(whose) => return Verdict::no(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) => Some(pod),
        Slot::Stray(_) | Slot::Free => None,
    };
    if observed.deleting() {
        return Verdict::no(reason::DELETING, "the object is being deleted");
    }
    if replacement::due(observed) {
        return Verdict::no(
            reason::STARTING,
            format!("nothing runs on pod {name}, and it is replaced by one of the object as it is now"),
        );
    }
    if let Some(pod) = observed.working_provider().or_else(|| unheard_provider(observed)) {
        let at = node(pod).unwrap_or_default();
        return Verdict::yes(reason::AS_REQUESTED, format!("pod {name} runs on node {at}"));
    }
    if observed.node_gone {
        let at = observed.status().node_name.unwrap_or_default();
        return Verdict::no(
            reason::NODE_GONE,
            format!(
                "node {at} holds the filesystem and does not exist (any more); the object goes on if it comes back, \
                 else delete the object"
            ),
        );
    }
    if matches!(observed.provider, Slot::Stray(_)) {
        return Verdict::no(reason::STARTING, super::pod::stray(&name));
    }
    match pod {
        Some(pod) if leaving(pod) => Verdict::no(
            reason::STARTING,
            format!("pod {name} is going away and will be replaced"),
        ),
        Some(pod) => trouble(pod)
            .or_else(|| super::pod::agent_trouble(observed, pod))
            .map_or_else(
                || Verdict::no(reason::STARTING, format!("pod {name} is starting")),
                |why| Verdict::because(prefixed(&name, super::pinned::with_way_out(observed, why))),
            ),
        None if let Some(why) = observed.template_trouble() => Verdict::because(why),
        None if observed.home().is_none() => unplaced(observed),
        None => observed.provider_hold.as_ref().map_or_else(
            || Verdict::no(reason::STARTING, format!("pod {name} has still to be created")),
            |hold| Verdict::because(prefixed(&name, hold.trouble.clone())),
        ),
    }
}

/// Before a node is chosen: what the scheduler has to say of the placeholder.
fn unplaced(observed: &Observed) -> Verdict {
    let name = Role::Placeholder.pod_name(&observed.instance.name_any());
    let waiting = || {
        Verdict::no(
            reason::STARTING,
            format!("pod {name} waits for the scheduler to choose a node"),
        )
    };
    match &observed.placeholder {
        Slot::Taken(whose) => Verdict::no(reason::NAME_CONFLICT, whose.clone()),
        Slot::Stray(_) => Verdict::no(reason::STARTING, super::pod::stray(&name)),
        Slot::Ours(pod) => trouble(pod).map_or_else(waiting, |why| Verdict::because(prefixed(&name, why))),
        Slot::Free => observed.placeholder_hold.as_ref().map_or_else(waiting, |hold| {
            Verdict::because(prefixed(&name, hold.trouble.clone()))
        }),
    }
}

/// The provider pod on a node that is not heard of. Kubernetes calls all pods there not Ready because of the node; what
/// ran is taken to run.
fn unheard_provider(observed: &Observed) -> Option<&Arc<Pod>> {
    observed.node_silent.as_ref()?;
    observed
        .provider
        .pod()
        .filter(|pod| running(pod) && !leaving(pod))
}

fn prefixed(pod: &str, why: Trouble) -> Trouble {
    Trouble {
        message: format!("pod {pod}: {}", why.message),
        reason: why.reason,
    }
}
