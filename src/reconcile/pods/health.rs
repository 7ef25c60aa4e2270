/*!
The state of a pod's main container: whether it runs, how it ended, and whether it has run for long
enough to reset the back-off.

The controller reads all of it from the pod. The kubelet cannot know whether the wrapper in a
container has executed the user's program yet. If the program can never be executed, the wrapper
writes that to the container's termination message.
*/

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::jiff::SignedDuration;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::WRAPPER_LINE_PREFIX;
use stoppablecontainer_api::truncate_utf8;

use crate::reconcile::conditions::Cause;

/// After a run of this length the failures before it do not count any more: the kubelet's rule for
/// restarts of a container ("Container restart policy" in the Kubernetes documentation: the
/// back-off is reset after 10 minutes).
const HEALTHY: SignedDuration = SignedDuration::from_mins(10);
/// Exit codes with which the wrapper ends when it has not executed the program.
const NOT_EXECUTED: std::ops::RangeInclusive<i32> = 125..=127;
/// Longest part of a termination message that is repeated in a condition, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Whether the container `main` is there and does not run: it ended and is about to be started
/// again, or waits for that.
pub(crate) fn is_down(pod: &Pod, main: &str) -> bool {
    let state = container(pod, main).and_then(|container| container.state.as_ref());
    state.is_some_and(|state| {
        state.running.is_none() && (state.terminated.is_some() || state.waiting.is_some())
    })
}

/// Whether the last or present run of the container `main` was long enough to forget what failed
/// before it. Both ends are the node's, so its clock does not matter.
pub(crate) fn was_healthy(pod: &Pod, main: &str) -> bool {
    let Some(container) = container(pod, main) else {
        return false;
    };
    let ends = [&container.state, &container.last_state];
    let mut ends = ends
        .into_iter()
        .flatten()
        .filter_map(|state| state.terminated.as_ref());
    ends.any(|end| match (&end.started_at, &end.finished_at) {
        (Some(from), Some(to)) => to.0.duration_since(from.0) >= HEALTHY,
        _ => false,
    })
}

/// A container that was started again after its program could not be executed, and of which only
/// the kubelet's report on the wrapper shows that it runs: its id, and its last end.
pub(crate) fn unconfirmed<'a>(pod: &'a Pod, main: &str) -> Option<(&'a str, Cause)> {
    let container = container(pod, main)?;
    container.state.as_ref()?.running.as_ref()?;
    let last = container.last_state.as_ref()?.terminated.as_ref()?;
    let id = container.container_id.as_deref()?;
    not_executed(last).map(|_| (id, termination_cause(&container.name, last)))
}

/// How often the container `main`, which runs, was started again, and how it ended last.
pub(crate) fn restarts(pod: &Pod, main: &str) -> Option<(i32, Cause)> {
    let container = container(pod, main)?;
    container.state.as_ref()?.running.as_ref()?;
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let cause = last.map_or_else(
        || Cause::new("Error", format!("container {main}: ended")),
        |last| termination_cause(main, last),
    );
    Some((container.restart_count, cause))
}

/// How a container ended.
pub(crate) fn termination_cause(container: &str, end: &ContainerStateTerminated) -> Cause {
    if let Some(why) = not_executed(end) {
        let message = format!("container {container}: {why} (exit code {})", end.exit_code);
        return Cause::new(reason::CONTAINER_CANNOT_RUN, message);
    }
    let reason = end.reason.as_deref().filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or("Error");
    let said = end
        .message
        .as_deref()
        .map(str::trim)
        .filter(|said| !said.is_empty());
    let said = said
        .map(|said| format!(": {}", truncate_utf8(said, MAX_MESSAGE)))
        .unwrap_or_default();
    Cause::new(
        reason,
        format!(
            "container {container}: ended with exit code {} ({reason}){said}",
            end.exit_code
        ),
    )
}

/// Why a container that is started again and again waits: how it ended last. The kubelet's message
/// has the length of the pause, which changes all the time, and is left out.
pub(crate) fn crash_loop(container: &ContainerStatus, reason: &str) -> Cause {
    const WAITS: &str = "it is started again with growing pauses";
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let Some(last) = last else {
        return Cause::new(reason, format!("container {}: {WAITS}", container.name));
    };
    let Cause { reason: how, message } = termination_cause(&container.name, last);
    let reason = if how == reason::CONTAINER_CANNOT_RUN {
        reason::CONTAINER_CANNOT_RUN
    } else {
        reason
    };
    Cause::new(reason, format!("{message}; {WAITS}"))
}

/// The wrapper's termination message, if it has not executed the program. A program can imitate it
/// and deceives only its own user.
fn not_executed(end: &ContainerStateTerminated) -> Option<&str> {
    let said = end.message.as_deref()?.strip_prefix(WRAPPER_LINE_PREFIX)?;
    NOT_EXECUTED
        .contains(&end.exit_code)
        .then(|| truncate_utf8(said.trim(), MAX_MESSAGE))
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|container| container.name == name)
}

#[cfg(test)]
mod tests;
