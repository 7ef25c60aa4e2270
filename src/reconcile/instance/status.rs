/*!
The status of an instance, from what is seen: phase and conditions as a whole,
and the UIDs and the node that the agent relies on. Pure, like the plan.

`status.filesystem` is the agent's. It is read here and never written.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{
    CONSUMER_READY, FILESYSTEM_READY, PROVIDER_READY, READY, RESTART_REQUIRED, reason,
};
use stoppablecontainer_api::{FilesystemState, Phase, StoppableContainerInstanceStatus, storage_limit};

use crate::reconcile::instance::plan::{Observed, Slot};
use crate::reconcile::pods::{Role, Trouble, leaving, node, ready, running, trouble};
use crate::reconcile::{
    instance::plan::placement, instance::plan::replacement, instance::storage, instance::template,
    pods::health,
};

pub(crate) mod pinned;
pub(crate) mod restart_required;
mod unready;

/// Whether something holds, if that is known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    holds: Option<bool>,
    why: Trouble,
}

/// The status that `observed` deserves, next to the one it has. Equal to the present one when nothing changed.
pub fn status(observed: &Observed, now: Timestamp) -> StoppableContainerInstanceStatus {
    let old = observed.status();
    let provider = provider_verdict(observed);
    let filesystem = filesystem_verdict(observed);
    let consumer = consumer_verdict(observed);
    let phase = phase(observed, &provider, &filesystem);
    let [provider, consumer] = [provider, consumer].map(|part| unready::unless_unready(observed, part));
    let [provider, filesystem, consumer] = unless_silent(observed, [provider, filesystem, consumer]);
    let mut ready = ready_verdict(observed, phase, [&provider, &filesystem, &consumer]);
    let restart = restart_required::why(observed);
    if let Some(why) = &restart {
        ready.why.message = format!("{}; {RESTART_REQUIRED}: {}", ready.why.message, why.message);
    }
    let generation = observed.instance.metadata.generation;
    let verdicts = [
        (READY, ready),
        (PROVIDER_READY, provider),
        (FILESYSTEM_READY, filesystem),
        (CONSUMER_READY, consumer),
    ];
    StoppableContainerInstanceStatus {
        phase: Some(phase),
        node_name: old.node_name.clone().or_else(|| {
            observed
                .provider
                .pod()
                .and_then(|pod| node(pod))
                .map(str::to_owned)
        }),
        observed_generation: generation,
        provider_pod_uid: observed.provider.pod().and_then(|pod| pod.uid()),
        consumer_pod_uid: observed.consumer.pod().and_then(|pod| pod.uid()),
        placement: placement::next(observed, &old),
        image: pinned::pinned(observed, &old),
        storage_limit: consumer_limit(observed, &old),
        template_check: template::known(observed),
        conditions: [
            conditions(&old.conditions, verdicts, generation, now),
            restart.map_or_else(Vec::new, |why| {
                let required = Verdict::yes(&why.reason, why.message);
                conditions(&old.conditions, [(RESTART_REQUIRED, required)], generation, now)
            }),
        ]
        .concat(),
        filesystem: old.filesystem,
    }
}

/// Conditions from verdicts, as a whole: nothing of the old list stays but the time at which a status that is still
/// the same began.
pub fn conditions<const N: usize>(
    old: &[Condition],
    verdicts: [(&str, Verdict); N],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(kind, verdict)| {
            let status = match verdict.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = old
                .iter()
                .find(|c| c.type_ == kind && c.status == status)
                .map(|c| c.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: condition_reason(&verdict.why.reason),
                message: condition_message(verdict.why.message),
                observed_generation: generation,
                last_transition_time: since.unwrap_or(Time(now)),
            }
        })
        .collect()
}

/// The API server takes `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$` of at most 1,024 bytes; others' reasons may be
/// anything.
fn condition_reason(reason: &str) -> String {
    let kept: String = reason
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(1024)
        .collect();
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) {
        kept
    } else {
        format!("Reason{kept}")
    }
}

/// At most 32,768 characters.
fn condition_message(message: String) -> String {
    if message.len() <= 32_768 {
        message
    } else {
        message.chars().take(8_000).collect()
    }
}

// === impl Verdict ===

impl Verdict {
    /// It holds.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: Some(true),
            why: Trouble::new(reason, message),
        }
    }

    /// Nobody can say.
    pub fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: None,
            why: Trouble::new(reason, message),
        }
    }

    /// It does not.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self::because(Trouble::new(reason, message))
    }

    /// It does not, and somebody else has already said why.
    pub fn because(why: Trouble) -> Self {
        Self {
            holds: Some(false),
            why,
        }
    }

    fn holds(&self) -> bool {
        self.holds == Some(true)
    }
}

// === Verdicts on an instance ===

fn provider_verdict(observed: &Observed) -> Verdict {
    let name = Role::Provider.pod_name(&observed.instance.name_any());
    let pod = match &observed.provider {
        Slot::Taken(whose) => return Verdict::no(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) => Some(pod),
        Slot::Stray(_) | Slot::Free => None,
    };
    if observed.deleting() {
        return Verdict::no(reason::DELETING, "the object is being deleted");
    }
    if let Some(by) = replacement::due(observed) {
        return Verdict::no(
            reason::STARTING,
            format!("nothing runs on pod {name}, and it is replaced {by}"),
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
        return Verdict::no(reason::STARTING, stray(&name));
    }
    match pod {
        Some(pod) if leaving(pod) => Verdict::no(
            reason::STARTING,
            format!("pod {name} is going away and will be replaced"),
        ),
        Some(pod) => trouble(pod).or_else(|| agent_trouble(observed, pod)).map_or_else(
            || Verdict::no(reason::STARTING, format!("pod {name} is starting")),
            |why| Verdict::because(prefixed(&name, pinned::with_way_out(observed, why))),
        ),
        None if let Some(why) = observed.template_trouble() => Verdict::because(why),
        None => observed.provider_hold.as_ref().map_or_else(
            || Verdict::no(reason::STARTING, format!("pod {name} has still to be created")),
            |hold| Verdict::because(prefixed(&name, hold.trouble.clone())),
        ),
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

fn filesystem_verdict(observed: &Observed) -> Verdict {
    let status = observed.status();
    let at = status.node_name.clone().unwrap_or_default();
    let state = status.filesystem.as_ref().map(|filesystem| filesystem.state);
    if observed.deleting() {
        let message = if state == Some(FilesystemState::Removed) {
            format!("the data was removed from node {at}")
        } else if observed.data_is_gone() {
            "there is no data".to_owned()
        } else {
            // What went wrong before does not matter any more, but for what keeps the data there.
            let obstacle = status.filesystem.as_ref().and_then(|filesystem| {
                let refused = filesystem.reason.as_deref() == Some(reason::HOST_PATH_PREFIX_REFUSED);
                filesystem.message.as_ref().filter(|_| refused)
            });
            let waits = format!("waits for the node agent on node {at} to remove the data");
            obstacle.map_or(waits.clone(), |obstacle| format!("{waits}: {obstacle}"))
        };
        return Verdict::no(reason::DELETING, message);
    }
    let Some(filesystem) = &status.filesystem else {
        return Verdict::no(
            reason::PREPARING,
            "the node agent prepares it once the provider pod runs",
        );
    };
    if filesystem.state == FilesystemState::Failed {
        let reason = filesystem.reason.as_deref().unwrap_or(reason::FILESYSTEM_FAILED);
        let message = filesystem
            .message
            .clone()
            .unwrap_or_else(|| "the node agent gave no reason".to_owned());
        let ways = storage::ways_out(&observed.instance, filesystem);
        return Verdict::no(reason, format!("{message}{ways}"));
    }
    if observed.usable_filesystem().is_some() {
        return match (&filesystem.write_failed, &filesystem.disk_low) {
            (Some(report), _) => Verdict::yes(reason::WRITE_FAILED, report.message.clone()),
            (None, Some(warning)) => Verdict::yes(reason::DISK_LOW, warning.clone()),
            (None, None) => Verdict::yes(reason::AS_REQUESTED, format!("kept on node {at}")),
        };
    }
    if let Some(image) = status.ready_filesystem().and_then(|ready| ready.image.as_ref()) {
        let user = observed.instance.spec.requested_user(image);
        let user = if user.is_empty() { "root".to_owned() } else { user };
        return Verdict::no(
            reason::PREPARING,
            format!("waits for the node agent on node {at} to look up user {user}"),
        );
    }
    let waits = format!("waits for the node agent on node {at}");
    let obstacle = filesystem.message.as_ref();
    Verdict::no(
        reason::PREPARING,
        obstacle.map_or(waits.clone(), |obstacle| format!("{waits}: {obstacle}")),
    )
}

fn consumer_verdict(observed: &Observed) -> Verdict {
    let name = observed.instance.name_any();
    let wanted = observed.instance.spec.running && !observed.deleting();
    match &observed.consumer {
        // Only a start is in anybody's way.
        Slot::Taken(whose) if wanted => Verdict::no(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) if leaving(pod) => {
            let then = if wanted { "; it will be started again" } else { "" };
            Verdict::no(
                reason::STOPPING,
                format!("pod {name} is ending within its grace period{then}"),
            )
        }
        Slot::Ours(_) if !wanted => {
            Verdict::no(reason::STOPPING, format!("pod {name} is about to be deleted"))
        }
        // The kubelet knows no more than that the container runs, or ends again and again.
        Slot::Ours(_) if let Some(what) = observed.blocked() => Verdict::no(
            reason::WAITING_FOR_FILESYSTEM,
            format!("pod {name} has not got its filesystem: {what}"),
        ),
        Slot::Ours(_) if let Some(last) = observed.doubt() => Verdict::because(last),
        Slot::Ours(pod) if ready(pod) => Verdict::yes(reason::AS_REQUESTED, format!("pod {name} is ready")),
        Slot::Ours(pod) => Verdict::because(
            trouble(pod)
                .or_else(|| agent_trouble(observed, pod))
                .unwrap_or_else(|| {
                    let how = if running(pod) {
                        "runs and is not ready yet"
                    } else {
                        "is starting"
                    };
                    Trouble::new(reason::STARTING, format!("pod {name} {how}"))
                }),
        ),
        Slot::Stray(_) if wanted => observed.consumer_hold.as_ref().map_or_else(
            || Verdict::no(reason::STARTING, stray(&name)),
            |hold| Verdict::because(hold.trouble.clone()),
        ),
        Slot::Stray(_) | Slot::Taken(_) | Slot::Free if !wanted => {
            Verdict::no(reason::STOPPED, "running is false")
        }
        _ if let Some(why) = observed.template_trouble() => Verdict::because(why),
        _ => {
            if let Some(excess) = observed.start_excess() {
                return Verdict::because(storage::refusal(&observed.instance, &excess));
            }
            observed.consumer_hold.as_ref().map_or_else(
                || Verdict::no(reason::STARTING, "waits for the provider pod and the filesystem"),
                |hold| Verdict::because(hold.trouble.clone()),
            )
        }
    }
}

/// A pod under our name that the controller has no record of.
fn stray(name: &str) -> String {
    format!(
        "pod {name} names this object as its owner, and the controller has no record of creating it; it is deleted and \
         replaced"
    )
}

/// What is on a node that is not heard of is not known: pods and data may be as they were or not.
fn unless_silent(observed: &Observed, parts: [Verdict; 3]) -> [Verdict; 3] {
    let Some(words) = observed.node_silent.as_ref().filter(|_| !observed.deleting()) else {
        return parts;
    };
    let status = observed.status();
    let pods = [&observed.provider, &observed.consumer].map(|slot| slot.pod());
    let at = status
        .node_name
        .or_else(|| pods.iter().flatten().find_map(|pod| node(pod)).map(str::to_owned));
    let message = format!(
        "node {} does not answer ({words}): what runs there is left alone, and nothing is started elsewhere until it is \
         back",
        at.unwrap_or_default()
    );
    let filesystem_known = status
        .filesystem
        .is_none_or(|filesystem| filesystem.state == FilesystemState::Failed);
    let known = [pods[0].is_none(), filesystem_known, pods[1].is_none()];
    let mut known = known.into_iter();
    parts.map(|part| match known.next() {
        Some(true) => part,
        _ => Verdict::unknown(reason::NODE_UNREACHABLE, message.clone()),
    })
}

/// The phases as docs/api.md has them. Running is that both run: a main container that ended and waits to
/// be started again does not, and one that is about to find out that it cannot execute its program neither.
fn phase(observed: &Observed, provider: &Verdict, filesystem: &Verdict) -> Phase {
    let consumer = observed.consumer.pod();
    // What runs, runs, whatever happened to the provider since.
    let main = observed.instance.spec.main_container();
    let runs = |pod: &Arc<Pod>| running(pod) && !leaving(pod) && !health::is_down(pod, main);
    if consumer.is_some_and(runs) && observed.blocked().is_none() && observed.doubt().is_none() {
        return Phase::Running;
    }
    let failed_filesystem = observed
        .status()
        .filesystem
        .is_some_and(|f| f.state == FilesystemState::Failed);
    let wants_taken_name = observed.instance.spec.running && matches!(observed.consumer, Slot::Taken(_));
    let wants_too_much = observed.instance.spec.running
        && matches!(observed.consumer, Slot::Free)
        && observed.start_excess().is_some();
    let stuck = matches!(observed.provider, Slot::Taken(_))
        || wants_taken_name
        || wants_too_much
        || observed.template_trouble().is_some()
        || failed_filesystem
        || provider.why.reason == reason::NODE_GONE;
    if stuck && !observed.deleting() {
        return Phase::Failed;
    }
    if consumer.is_some_and(|pod| leaving(pod)) {
        return Phase::ProviderReady;
    }
    match (provider.holds() && filesystem.holds(), consumer) {
        (true, None) if !observed.instance.spec.running => Phase::Stopped,
        (true, _) => Phase::ProviderReady,
        (false, _) => Phase::Pending,
    }
}

/// Ready is what was asked for: a ready consumer, or none and everything in place for the next start. Otherwise the
/// first thing in the way says why.
fn ready_verdict(observed: &Observed, phase: Phase, parts: [&Verdict; 3]) -> Verdict {
    let [.., consumer] = parts;
    if observed.deleting() {
        return Verdict::no(reason::DELETING, "the object is being deleted");
    }
    // What is asked for cannot be told without the node.
    let unknown = parts.into_iter().find(|part| part.holds.is_none());
    if let Some(unknown) = unknown.filter(|_| phase != Phase::Failed) {
        return unknown.clone();
    }
    // Also for a stopped object: it could not be started again.
    if let Some(why) = observed.template_trouble().filter(|_| phase == Phase::Failed) {
        return Verdict::because(why);
    }
    if phase == Phase::Stopped {
        return Verdict::yes(reason::STOPPED, "stopped as asked; the filesystem is kept");
    }
    if phase == Phase::Running {
        return consumer.clone();
    }
    parts
        .into_iter()
        .find(|part| part.holds == Some(false))
        .cloned()
        .unwrap_or_else(|| consumer.clone())
}

/// As the consumer has it; a LimitRange may have set it. Without a consumer, as the last one had it.
fn consumer_limit(observed: &Observed, old: &StoppableContainerInstanceStatus) -> Option<String> {
    let Some(pod) = observed.consumer.pod() else {
        return old.storage_limit.clone();
    };
    let limit = storage_limit(pod.spec.as_ref()?, observed.instance.spec.main_container());
    limit.map(str::to_owned)
}

/// The kubelet says only in events that it cannot mount a volume whose driver it does not know.
fn agent_trouble(observed: &Observed, pod: &Pod) -> Option<Trouble> {
    let at = node(pod).filter(|_| observed.agent_missing && !running(pod))?;
    Some(Trouble::new(
        reason::NODE_AGENT_MISSING,
        format!("no node agent is registered with the kubelet of node {at}; see the node-agent pod there"),
    ))
}

fn prefixed(pod: &str, why: Trouble) -> Trouble {
    Trouble {
        message: format!("pod {pod}: {}", why.message),
        reason: why.reason,
    }
}

#[cfg(test)]
mod tests;
