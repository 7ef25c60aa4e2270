//! Operations of tests on a StoppableContainer: create, stop, start, inspect.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, cluster_fact, patience};

pub(crate) mod agents;
pub(crate) mod counting;
pub(crate) mod disk;
pub(crate) mod kubelet;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod release;
pub(crate) mod users;

/// Labels of the agents' DaemonSet and pods.
pub(crate) const AGENTS: &str =
    "app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component=node-agent";
/// Time limit for output of a pod.
const PATIENCE: Duration = Duration::from_mins(1);

/// A template with one container that sleeps, for tests that only need a shell.
pub(crate) fn shell_template() -> Value {
    json!({"spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "ubuntu:22.04", "command": ["/bin/sleep", "infinity"]}],
    }})
}

/// The same on this node.
pub(crate) fn shell_on(node: &str) -> Value {
    let mut template = shell_template();
    template["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    template
}

pub(crate) async fn create(ns: &Namespace, name: &str, running: bool, template: Value) -> Result<()> {
    ns.create_json::<StoppableContainer>(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {"name": name}, "spec": {"running": running, "template": template},
    }))
    .await?;
    Ok(())
}

/// Creates a running container and waits until its pod is Ready.
pub(crate) async fn run(ns: &Namespace, name: &str, template: Value) -> Result<Pod> {
    create(ns, name, true, template).await?;
    running(ns, name).await
}

/// Waits for phase Running and the pod to be Ready.
pub(crate) async fn running(ns: &Namespace, name: &str) -> Result<Pod> {
    phase(ns, name, Phase::Running).await?;
    ns.pod_ready(name).await
}

pub(crate) async fn phase(ns: &Namespace, name: &str, phase: Phase) -> Result<StoppableContainer> {
    ns.wait(
        name,
        &format!("the phase is {phase}"),
        |object: &StoppableContainer| {
            let status = object.status.as_ref();
            status.and_then(|s| s.phase) == Some(phase)
                && status.and_then(|s| s.observed_generation) == object.metadata.generation
        },
    )
    .await
}

/// Waits until the object reports that the creation of its consumer was rejected. The consumer does
/// not exist then.
pub(crate) async fn creation_refused(ns: &Namespace, name: &str) -> Result<String> {
    let message = blocked(ns, name, CONSUMER_READY, reason::CREATION_REFUSED).await?;
    anyhow::ensure!(
        ns.api::<Pod>().get_opt(name).await?.is_none(),
        "a consumer was created past the webhook"
    );
    Ok(message)
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(
    object: &'a StoppableContainer,
    kind: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let found = object
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|c| c.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Waits until a condition is false for this reason, and returns its message.
pub(crate) async fn blocked(ns: &Namespace, name: &str, kind: &str, reason: &str) -> Result<String> {
    blocked_saying(ns, name, kind, reason, "").await
}

/// The same, with text in the message that may appear later than the reason.
pub(crate) async fn blocked_saying(
    ns: &Namespace,
    name: &str,
    kind: &str,
    reason: &str,
    words: &str,
) -> Result<String> {
    let is = |object: &StoppableContainer| {
        condition(object, kind).is_some_and(|(status, why, message)| {
            status == "False" && why == reason && message.contains(words)
        })
    };
    let object = ns
        .wait(name, &format!("{kind} is false: {reason} {words:?}"), is)
        .await?;
    let (_, _, message) = condition(&object, kind).context("no condition")?;
    Ok(message.to_owned())
}

/// Waits for an event about a StoppableContainer.
pub(crate) async fn told(ns: &Namespace, name: &str, reason: &str) -> Result<()> {
    let about = |event: &Event| {
        let object = event.regarding.as_ref();
        event.reason.as_deref() == Some(reason)
            && object.is_some_and(|o| {
                o.kind.as_deref() == Some("StoppableContainer") && o.name.as_deref() == Some(name)
            })
    };
    let fields = format!("regarding.name={name},reason={reason}");
    let mut events = std::pin::pin!(kube::runtime::watcher(
        ns.api::<Event>(),
        kube::runtime::watcher::Config::default().fields(&fields),
    ));
    let seen = async {
        use futures::StreamExt;
        while let Some(event) = events.next().await {
            use kube::runtime::watcher::Event::{Apply, InitApply};
            if let Ok(Apply(event) | InitApply(event)) = &event
                && about(event)
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(patience(std::time::Duration::from_mins(1)), seen)
        .await
        .with_context(|| format!("no event {reason} about {name}"))?
}

pub(crate) async fn set_running(ns: &Namespace, name: &str, running: bool) -> Result<()> {
    ns.patch::<StoppableContainer>(name, json!({"spec": {"running": running}}))
        .await?;
    Ok(())
}

/// Stops a container and waits for phase Stopped. Then the consumer does not exist and the provider
/// exists.
pub(crate) async fn stop(ns: &Namespace, name: &str) -> Result<()> {
    set_running(ns, name, false).await?;
    phase(ns, name, Phase::Stopped).await?;
    anyhow::ensure!(
        ns.api::<Pod>().get_opt(name).await?.is_none(),
        "phase Stopped, but the consumer pod is there"
    );
    ns.pod_ready(&provider_pod_name(name)).await?;
    Ok(())
}

pub(crate) async fn start(ns: &Namespace, name: &str) -> Result<Pod> {
    set_running(ns, name, true).await?;
    running(ns, name).await
}

/// Watches until there is an event with this reason about a pod, and returns its note.
pub(crate) async fn told_about_pod(ns: &Namespace, about: &str, reason: &str) -> Result<String> {
    told_about(ns.api(), ("Pod", about), reason, "").await
}

/// Watches until there is an event with this reason and with these words about an object, and
/// returns its note.
pub(crate) async fn told_about(
    events: Api<Event>,
    (kind, about): (&str, &str),
    reason: &str,
    words: &str,
) -> Result<String> {
    use futures::StreamExt;
    use kube::runtime::{WatchStreamExt, watcher};
    let config = watcher::Config::default().fields(&format!(
        "regarding.kind={kind},regarding.name={about},reason={reason}"
    ));
    let watch = watcher(events, config).default_backoff().applied_objects();
    let mut watch = std::pin::pin!(watch);
    let first = async {
        loop {
            match watch.next().await {
                Some(Ok(Event { note: Some(note), .. })) if note.contains(words) => return note,
                Some(_) => {}
                None => return String::new(),
            }
        }
    };
    tokio::time::timeout(patience(std::time::Duration::from_mins(3)), first)
        .await
        .with_context(|| format!("no event {reason} about {about}"))
}

/// The agent of a node.
pub(crate) async fn agent_on(client: &Client, node: &str) -> Result<Pod> {
    let of_node = ListParams::default()
        .labels(AGENTS)
        .fields(&format!("spec.nodeName={node}"));
    let agents = Api::<Pod>::all(client.clone()).list(&of_node).await?;
    let agent = agents
        .items
        .into_iter()
        .find(|pod| pod.metadata.deletion_timestamp.is_none());
    agent.with_context(|| format!("no agent on node {node}"))
}

/// The directory on the node that holds the data of a container.
pub(crate) async fn data_directory(ns: &Namespace, name: &str) -> Result<String> {
    let instance = ns.api::<StoppableContainerInstance>().get(name).await?;
    let uid = instance.metadata.uid.context("an instance without UID")?;
    Ok(format!("{}/{uid}", instance.spec.host_path_prefix))
}

/// Directory on the nodes where a disk can be mounted for kept filesystems.
pub(crate) fn disk_directory() -> Result<String> {
    cluster_fact(
        "E2E_DISK",
        "a directory that spec.hostPathPrefix may name and that is unused",
    )
}

/// The file on the nodes that lists the file systems to mount at boot.
pub(crate) fn node_file_systems() -> Result<String> {
    cluster_fact(
        "E2E_FSTAB",
        "a file whose file systems a node mounts when it starts",
    )
}

/// Deletes a container, if it exists.
pub(crate) async fn forget(ns: &Namespace, name: &str) -> Result<()> {
    if ns.api::<StoppableContainer>().get_opt(name).await?.is_none() {
        return Ok(());
    }
    ns.delete::<StoppableContainer>(name).await
}

/// The result of a test that has cleaned up: its own error comes first, then that of the clean-up.
pub(crate) fn cleaned_up<T>(tested: Result<T>, cleaned: Result<()>) -> Result<T> {
    match (tested, cleaned) {
        (tested, Ok(())) => tested,
        (Ok(_), Err(error)) => Err(error.context("cleaning up")),
        (Err(first), Err(error)) => Err(anyhow::anyhow!("{first:#}\nand then, cleaning up: {error:#}")),
    }
}

/// What keeps autoscalers from removing the pod's node, of what the chart sets by default
/// (`provider.keepNodeAnnotations`).
pub(crate) fn keeping_node(pod: &Pod) -> Vec<&'static str> {
    let defaults = [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
    ];
    let annotations = pod.annotations();
    let set = defaults
        .into_iter()
        .filter(|(name, value)| annotations.get(*name).is_some_and(|is| is == value));
    set.map(|(name, _)| name).collect()
}

pub(crate) fn node_of(pod: &Pod) -> Result<String> {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.clone())
        .context("a pod without node")
}

pub(crate) fn uid_of(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// The runtime's ID of a container of a pod.
pub(crate) fn container_id(pod: &Pod, container: &str) -> Result<String> {
    pod.status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .find(|c| c.name == container)
        .and_then(|c| c.container_id.clone())
        .with_context(|| format!("container {container} has no id"))
}

/// Waits until the log of a pod's main container contains this text.
pub(crate) async fn says(ns: &Namespace, pod: &str, words: &str) -> Result<()> {
    container_says(ns, pod, "main", words).await
}

/// The same for another container.
pub(crate) async fn container_says(ns: &Namespace, pod: &str, container: &str, words: &str) -> Result<()> {
    let params = LogParams {
        container: Some(container.to_owned()),
        follow: true,
        ..LogParams::default()
    };
    let said = async {
        let mut lines = ns.api::<Pod>().log_stream(pod, &params).await?.lines();
        while let Some(line) = lines.next().await {
            if line?.contains(words) {
                return Ok(());
            }
        }
        anyhow::bail!("the log ended")
    };
    tokio::time::timeout(patience(PATIENCE), said)
        .await
        .with_context(|| format!("pod {pod} does not say {words:?}"))?
}
