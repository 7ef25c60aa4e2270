//! What a wait waits for, and whether an object is there. Pure.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{
    CONSUMER_READY, FILESYSTEM_READY, PROVIDER_READY, READY, RESTART_REQUIRED, reason,
};
use stoppablecontainer_api::{Phase, RecoveryAnswer, StoppableContainer, StoppableContainerInstance};

use super::Target;
use crate::view;

/// The state to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The main container runs.
    Running,
    /// The pod is ready.
    Ready,
    /// Nothing of it runs any more.
    Stopped,
    /// The object and its files are gone.
    Deleted,
    /// The pod was replaced by a new one, which runs.
    Restarted,
    /// The controller has reported on the newest spec.
    Observed,
    /// A recovery was carried out, and the state is as requested.
    Recovered(Recovery),
}

/// A recovery that was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The answer to the offer with this identifier: the offer disappears.
    Answered(String),
    /// The files are deleted and the instance is replaced: it has another UID than this.
    Replaced(String),
}

/// What the watches reported about a target.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The object, if it exists.
    pub object: Option<StoppableContainer>,
    /// Its pod, if that is watched and exists.
    pub pod: Option<Pod>,
    /// Its instance, if that is watched and exists.
    pub instance: Option<StoppableContainerInstance>,
}

/// Whether a target is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It will not be, and this is why.
    Failed(String),
    /// Not yet.
    Pending {
        /// What happens now.
        step: String,
        /// What it is waiting for, if that is known.
        cause: Option<String>,
    },
}

/// Whether `seen` is what `goal` asks for.
pub fn verdict(goal: &Goal, target: &Target, seen: &Seen) -> Verdict {
    let object = seen
        .object
        .as_ref()
        .filter(|object| target.uid.is_none() || object.uid() == target.uid);
    let Some(object) = object else {
        return match goal {
            Goal::Deleted => Verdict::Met,
            _ if target.uid.is_none() => Verdict::Failed("the object does not exist".to_owned()),
            _ => Verdict::Failed("the object was deleted meanwhile".to_owned()),
        };
    };
    if matches!(goal, Goal::Deleted) {
        return Verdict::Pending {
            step: deletion_step(object).to_owned(),
            // The step says already that the object is being deleted.
            cause: view::cause(object)
                .filter(|cause| cause.reason != reason::DELETING)
                .map(view::line),
        };
    }
    if view::is_deleting(object) {
        return Verdict::Failed("the object is being deleted".to_owned());
    }
    if !view::is_current(object) {
        let cause = "the controller has not reported on the change yet; if that lasts, check it with `kubectl \
                     stopc doctor`";
        return Verdict::Pending {
            step: "waiting for the controller".to_owned(),
            cause: Some(cause.to_owned()),
        };
    }
    if is_met(goal, target, seen, object) {
        return Verdict::Met;
    }
    // A recovery starts in the phase Failed, and a stop may have to wait for its pod.
    let fails = !matches!(goal, Goal::Recovered(_) | Goal::Stopped | Goal::Observed);
    if fails && view::phase(object) == Some(Phase::Failed) && !is_decided_again(object) {
        return Verdict::Failed(failure(object));
    }
    Verdict::Pending {
        step: step(goal, object).to_owned(),
        cause: pending_cause(goal, object),
    }
}

/// Whether the failure is of an earlier provider, and the one that is starting decides again about
/// the filesystem.
fn is_decided_again(object: &StoppableContainer) -> bool {
    view::condition(object, READY).is_some_and(|ready| ready.reason == reason::STARTING)
}

fn is_met(goal: &Goal, target: &Target, seen: &Seen, object: &StoppableContainer) -> bool {
    let runs = view::phase(object) == Some(Phase::Running);
    match goal {
        Goal::Running => runs,
        Goal::Ready => runs && view::is_true(object, READY),
        Goal::Stopped => view::is_stopped(object),
        Goal::Deleted => false,
        Goal::Observed => true,
        Goal::Restarted => {
            let new = seen.pod.as_ref().filter(|pod| pod.uid() != target.old_pod);
            runs && new.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none() && is_started(pod))
        }
        Goal::Recovered(recovery) => {
            let done = match recovery {
                Recovery::Answered(id) => seen.instance.as_ref().is_some_and(|instance| {
                    let status = instance.status.as_ref();
                    let offer = status.and_then(|status| status.filesystem.as_ref()?.recovery.as_ref());
                    offer.is_none_or(|offer| offer.id != *id)
                }),
                Recovery::Replaced(old) => {
                    let uid = object
                        .status
                        .as_ref()
                        .and_then(|status| status.instance_uid.as_ref());
                    uid.is_some_and(|uid| uid != old)
                }
            };
            let wanted = if object.spec.running {
                Phase::Running
            } else {
                Phase::Stopped
            };
            done && view::phase(object) == Some(wanted)
        }
    }
}

fn is_started(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running")
}

/// Why the object failed, and what to do.
fn failure(object: &StoppableContainer) -> String {
    view::cause(object).map_or_else(|| "it failed".to_owned(), |cause| explained(object, cause))
}

fn explained(object: &StoppableContainer, cause: &Condition) -> String {
    let line = view::line(cause);
    match view::advice(object, &cause.reason) {
        Some(advice) => format!("{line}; {advice}"),
        None => line,
    }
}

fn pending_cause(goal: &Goal, object: &StoppableContainer) -> Option<String> {
    match goal {
        Goal::Running | Goal::Ready | Goal::Restarted if !object.spec.running => Some(format!(
            "spec.running is false; start it: kubectl stopc start {}",
            object.name_any()
        )),
        Goal::Stopped if object.spec.running => Some(format!(
            "spec.running is true; stop it: kubectl stopc stop {}",
            object.name_any()
        )),
        Goal::Restarted if view::is_true(object, RESTART_REQUIRED) => Some(
            "the controller has not replaced the pod; compare the versions: kubectl stopc version".to_owned(),
        ),
        _ => view::cause(object).map(|cause| explained(object, cause)),
    }
}

fn step(goal: &Goal, object: &StoppableContainer) -> &'static str {
    let reason_of = |kind| view::condition(object, kind).map(|condition| condition.reason.as_str());
    match goal {
        Goal::Stopped => "stopping the pod and writing its files to the disk",
        Goal::Restarted if view::phase(object) == Some(Phase::Running) => "replacing the pod",
        _ if reason_of(CONSUMER_READY) == Some(reason::STOPPING) => "waiting for the old pod to end",
        Goal::Recovered(_) if view::phase(object) == Some(Phase::Failed) => "waiting for the recovery",
        _ if !view::is_true(object, PROVIDER_READY) => "choosing the node and pulling the image",
        _ if !view::is_true(object, FILESYSTEM_READY) => "preparing the filesystem",
        Goal::Ready if view::phase(object) == Some(Phase::Running) => "waiting for the pod to be ready",
        _ => "starting the pod",
    }
}

fn deletion_step(object: &StoppableContainer) -> &'static str {
    if view::is_deleting(object) {
        "deleting the pods and the files"
    } else {
        "waiting for the deletion"
    }
}

// === impl Goal ===

impl Goal {
    /// Value of `wait --for`, if there is one.
    pub fn flag(&self) -> Option<&'static str> {
        match self {
            Self::Running | Self::Restarted => Some("running"),
            Self::Ready => Some("ready"),
            Self::Stopped => Some("stopped"),
            Self::Deleted => Some("deleted"),
            Self::Observed | Self::Recovered(_) => None,
        }
    }

    /// The state as an adjective.
    pub fn adjective(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
            Self::Restarted => "restarted",
            Self::Observed => "seen by the controller",
            Self::Recovered(_) => "recovered",
        }
    }
}

// === impl Recovery ===

impl Recovery {
    /// What to wait for after an answer: the UID is that of the instance before.
    pub fn after(answer: &RecoveryAnswer, instance_uid: Option<&str>) -> Self {
        match instance_uid {
            Some(uid) if RecoveryAnswer::abandoning(uid) == *answer => Self::Replaced(uid.to_owned()),
            _ => Self::Answered(answer.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
