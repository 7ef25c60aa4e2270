/*!
A consumer that waits for its filesystem, in the status of its instance.

To the kubelet its container runs, and without probes the container is even ready. Only the agent
knows that the command has not been executed.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use rootfs::holders::{self, Holder};
use stoppablecontainer_api::{ConsumerReport, FilesystemStatus};
use tokio::time::Instant;

use super::Filesystems;
use crate::instance::{Blocked, Instance, State, status};
use crate::node::cgroup::container_of;
use crate::volumes::Users;

/// What lasts no longer than this is the normal way of a start, and not worth a write.
const USUAL_TIME: Duration = Duration::from_secs(2);

/// Remembers what a consumer's pod waits for.
pub(crate) fn set(instance: &Instance, pod_uid: &str, message: &str) {
    let consumer = ConsumerReport {
        pod_uid: pod_uid.to_owned(),
        message: message.to_owned(),
    };
    instance.change(|state| {
        let before = state
            .blocked
            .take()
            .filter(|before| before.consumer.pod_uid == consumer.pod_uid);
        let since = before.map_or_else(Instant::now, |before| before.since);
        state.blocked = Some(Blocked {
            consumer,
            since,
            recorded: false,
        });
    });
}

/// Forgets the pod: it has its filesystem, or is gone.
pub(crate) fn forget(instance: &Instance, pod_uid: &str) {
    instance.change(|state| {
        if is_blocked(state, pod_uid) {
            state.blocked = None;
        }
    });
}

/// Checks what an earlier agent reported: that agent may have moved the container without reporting
/// it, and then the wrapper does not ask again.
pub(crate) async fn check_recorded(filesystems: &Filesystems, instance: &Instance) -> Result<()> {
    let Some(blocked) = instance.state().blocked.filter(|blocked| blocked.recorded) else {
        return Ok(());
    };
    let node = &filesystems.node;
    let (host, key) = (Arc::clone(&node.host), instance.id.uid.clone());
    let pod_uid = blocked.consumer.pod_uid.clone();
    let volumes = filesystems.volumes.of_instance(&key);
    let volume = volumes.iter().find(|volume| volume.record.pod.uid == pod_uid);
    let id_maps = match volume {
        // The runtime does not know a pod that is gone.
        Some(volume) => volume.id_maps(&node.cri).await.ok().flatten().cloned(),
        None => None,
    };
    let look = move || {
        let holders = holders::find(&host.proc, &key)?;
        let is_of_pod = |holder: &Holder| {
            let cgroup = holder.process.cgroup(&host.proc).ok();
            // In other user namespaces than the pod's the names of mounts prove nothing.
            let users = Users::of(&host, &holder.process, id_maps.as_ref());
            matches!(users, Ok(Some(_)))
                && cgroup.is_some_and(|cgroup| container_of(&cgroup, &pod_uid).is_some())
        };
        anyhow::Ok(holders.iter().any(is_of_pod))
    };
    let moved = tokio::task::spawn_blocking(look)
        .await
        .context("look for the container")??;
    instance.change(|state| {
        // Another task may have newer information by now.
        if let Some(now) = state.blocked.take_if(|now| now.recorded) {
            state.blocked = (!moved).then_some(Blocked {
                recorded: false,
                ..now
            });
        }
    });
    Ok(())
}

/// Reports what lasts. Returns when to look again.
pub(crate) async fn report(client: &Client, instance: &Instance) -> Result<Option<Duration>> {
    match due(&instance.state()) {
        Due::Never => return Ok(None),
        Due::In(rest) => return Ok(Some(rest)),
        Due::Now(_) => {}
    }
    let news = |state: &State| match due(state) {
        Due::Now(status) => Some(*status),
        Due::Never | Due::In(_) => None,
    };
    status::update(client, instance, news).await?;
    Ok(None)
}

enum Due {
    Never,
    In(Duration),
    Now(Box<FilesystemStatus>),
}

fn due(state: &State) -> Due {
    let Some(before) = state.filesystem() else {
        return Due::Never;
    };
    let blocked = state.blocked.as_ref().map(|blocked| &blocked.consumer);
    let deleted = || {
        state
            .object
            .as_ref()
            .is_none_or(|object| object.metadata.deletion_timestamp.is_some())
    };
    if before.blocked.as_ref() == blocked || deleted() {
        return Due::Never;
    }
    let rest = state
        .blocked
        .as_ref()
        .map(|blocked| USUAL_TIME.saturating_sub(blocked.since.elapsed()));
    match rest.filter(|rest| !rest.is_zero()) {
        Some(rest) => Due::In(rest),
        None => Due::Now(Box::new(FilesystemStatus {
            blocked: blocked.cloned(),
            ..before.clone()
        })),
    }
}

fn is_blocked(state: &State, pod_uid: &str) -> bool {
    state
        .blocked
        .as_ref()
        .is_some_and(|blocked| blocked.consumer.pod_uid == pod_uid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(reported: Option<&str>, blocked: Option<(&str, Duration)>) -> State {
        let consumer = |message: &str| json!({ "podUid": "u1", "message": message });
        let object = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
            "status": { "filesystem": { "state": "Ready", "nodeName": "n1", "blocked": reported.map(consumer) } },
        });
        State {
            object: Some(Arc::new(serde_json::from_value(object).unwrap())),
            blocked: blocked.map(|(message, age)| Blocked {
                consumer: serde_json::from_value(consumer(message)).unwrap(),
                since: Instant::now().checked_sub(age).unwrap(),
                recorded: false,
            }),
            ..State::default()
        }
    }

    #[test]
    fn i12_only_what_lasts_is_reported_and_it_is_taken_back() {
        let long = Duration::from_mins(1);
        assert!(matches!(due(&state(None, None)), Due::Never));
        assert!(matches!(
            due(&state(None, Some(("x", Duration::ZERO)))),
            Due::In(_)
        ));
        assert!(matches!(due(&state(Some("x"), Some(("x", long)))), Due::Never));
        let reported = |state: &State| match due(state) {
            Due::Now(status) => Some(status.blocked.map(|blocked| blocked.message)),
            _ => None,
        };
        assert_eq!(
            reported(&state(None, Some(("x", long)))),
            Some(Some("x".to_owned()))
        );
        assert_eq!(
            reported(&state(Some("x"), Some(("y", long)))),
            Some(Some("y".to_owned()))
        );
        assert_eq!(reported(&state(Some("x"), None)), Some(None));
    }

    /// The agent died while it waited; the report stays until the next agent has checked it.
    #[test]
    fn i9_i12_the_next_agent_keeps_what_was_reported() {
        let object = state(Some("x"), None).object.unwrap();
        let instances = crate::instance::Instances::default();
        let mut object = (*object).clone();
        object.metadata.namespace = Some("ns".to_owned());
        object.metadata.uid = Some("u0".to_owned());
        let instance = instances.apply(object).unwrap();
        assert!(matches!(due(&instance.state()), Due::Never));
        assert!(is_blocked(&instance.state(), "u1"));
    }
}
