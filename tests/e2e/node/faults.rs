//! The node's own programs end and restart, or the node is disconnected: running containers are not
//! affected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, READY, STOPPED_CONDITION, reason};
use stoppablecontainer_api::names::{CSI_DRIVER, provider_pod_name};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::support::agents::Agents;
use crate::support::counting::{counting, unnoticed, with_program};
use crate::support::node::{Part, Partition};
use crate::support::{
    cleaned_up, condition, container_id, node_of, phase, run, running, set_running, shell_template, start,
    stop, uid_of,
};

/// The kubelet and the runtime are killed and restart. Containers keep running without losing
/// output, and then stop and start as usual.
#[tokio::test]
async fn f19_i9_consumers_survive_restarts_of_the_kubelet_and_the_runtime() {
    alone_in_namespace("parts-restart", async |ns, _alone| {
        let mut before = run(&ns, "kept", counting()).await?;
        let node = NodeShell::on(&ns, &node_of(&before)?).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        for part in [Part::Kubelet, Part::Runtime] {
            part.restart(&node).await?;
            unnoticed(&ns, &before)
                .await
                .with_context(|| format!("{part:?}"))?;
            stop(&ns, "kept").await?;
            before = start(&ns, "kept").await?;
            ensure!(
                ns.sh("kept", "main", "cat /root/file").await? == "kept",
                "the file is gone"
            );
        }
        node.close().await
    })
    .await;
}

/// The kubelet starts while the agent is missing, and finds a consumer that was stopped meanwhile.
/// The agent starts again, registers, and unpublishes the volume.
#[tokio::test]
async fn f19_i9_a_kubelet_that_starts_before_the_agent_finds_it_later() {
    alone_in_namespace("agent-later", async |ns, _alone| {
        let before = run(&ns, "kept", counting()).await?;
        let stopped = run(&ns, "stopped", shell_template()).await?;
        ns.sh("stopped", "main", "echo kept > /root/file").await?;
        let node = NodeShell::on(&ns, &node_of(&before)?).await?;
        let agents = Agents::find(&ns).await?;
        let without_agent = async || {
            let stop_unseen = async || {
                set_running(&ns, "stopped", false).await?;
                let leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
                ns.wait("stopped", "its deletion is asked for", leaving)
                    .await
                    .map(drop)
            };
            Part::Kubelet.restart_after(&node, stop_unseen).await?;
            unnoticed(&ns, &before).await?;
            // The object does not become Stopped while its volume exists.
            let object = ns.api::<StoppableContainer>().get("stopped").await?;
            let phase = object.status.and_then(|status| status.phase);
            ensure!(phase != Some(Phase::Stopped), "stopped without the agent");
            Ok(())
        };
        agents.away(without_agent).await?;

        phase(&ns, "stopped", Phase::Stopped).await?;
        let volumes = format!("{}/plugins/{CSI_DRIVER}/volumes", agents.kubelet_directory());
        let uid = uid_of(&stopped);
        let records = format!("grep -lF '{uid}' {volumes}/*/volume.json || true");
        let left = node.sh(&records).await? + &node.mounts_with(&uid).await?;
        ensure!(left.is_empty(), "left behind: {left}");
        // Requests about a running container work as well.
        let other = uid_of(&before);
        node.sh(&format!("grep -lF '{other}' {volumes}/*/volume.json"))
            .await?;
        ensure!(
            !node.mounts_with(&other).await?.is_empty(),
            "this test sees no mounts"
        );
        start(&ns, "stopped").await?;
        ensure!(
            ns.sh("stopped", "main", "cat /root/file").await? == "kept",
            "the file is gone"
        );
        unnoticed(&ns, &before).await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        node.close().await
    })
    .await;
}

/// The node cannot reach the API server. Its containers keep running, they are not started a second
/// time, and the objects report an unknown state until the node is back.
#[tokio::test]
async fn f28_a_node_that_is_cut_off_is_unknown_and_its_consumers_run_on() {
    alone_in_namespace("partition", async |ns, _alone| {
        let before = run(&ns, "kept", writing()).await?;
        let node = node_of(&before)?;
        let mut beside = shell_template();
        beside["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        for name in ["stopping", "asleep"] {
            run(&ns, name, beside.clone()).await?;
        }
        stop(&ns, "asleep").await?;
        for pod in [&before, &ns.pod_ready(&provider_pod_name("kept")).await?] {
            ensure!(
                stays(pod),
                "after five minutes Kubernetes would delete {}",
                pod.name_any()
            );
        }
        let seen = Seen::watch(&ns);

        let partition = Partition::cut(&ns, &node).await?;
        let cut = Timestamp::now();
        let cut_off = async {
            let object = ns.wait("kept", "Ready is Unknown", unknown).await?;
            let (_, _, message) = condition(&object, READY).context("no condition")?;
            ensure!(message.contains(&node), "about which node? {message}");
            // Kubernetes marks all pods of the node as not Ready.
            let unready = |pod: &Pod| {
                let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|c| c.type_ == "Ready" && c.status != "True")
            };
            for name in ["asleep", "kept"] {
                let what = "its provider is not Ready any more";
                ns.wait(&provider_pod_name(name), what, unready).await?;
            }
            ns.wait("asleep", "FilesystemReady is Unknown", its_filesystem_is_unknown)
                .await?;
            set_running(&ns, "stopping", false).await?;
            let told = |object: &StoppableContainer| {
                let observed = object.status.as_ref().and_then(|s| s.observed_generation);
                observed == object.metadata.generation && unknown(object)
            };
            ns.wait("stopping", "it was asked to stop and is Unknown", told)
                .await?;
            let leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
            ns.wait("stopping", "its deletion is asked for", leaving).await?;
            for (name, may_be) in [
                ("kept", &[Phase::Running][..]),
                ("asleep", &[Phase::Stopped]),
                ("stopping", &[Phase::Running, Phase::ProviderReady]),
            ] {
                let object = ns.api::<StoppableContainer>().get(name).await?;
                let phase = object.status.and_then(|status| status.phase);
                ensure!(
                    phase.is_some_and(|phase| may_be.contains(&phase)),
                    "phase of {name}: {phase:?}"
                );
            }
            anyhow::Ok(())
        }
        .await;
        let healed = Timestamp::now();
        cleaned_up(cut_off, partition.heal().await)?;

        phase(&ns, "stopping", Phase::Stopped).await?;
        let known = |object: &StoppableContainer| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            let mut of_running = conditions.filter(|c| c.type_ != STOPPED_CONDITION);
            of_running.all(|c| c.status == "True")
        };
        ns.wait("kept", "all conditions are true again", known).await?;
        let after = running(&ns, "kept").await?;
        ensure!(
            container_id(&after, "main")? == container_id(&before, "main")?,
            "the consumer was restarted"
        );
        let written = ns.sh("kept", "main", "cat /root/written").await?;
        let meanwhile = written_between(&written, cut, healed)?;
        ensure!(meanwhile > 0, "nothing was written while the node was cut off");
        for (name, pods) in seen.pods() {
            ensure!(pods.len() == 1, "{name} had more than one pod: {pods:?}");
        }
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        start(&ns, "stopping").await?;
        Ok(())
    })
    .await;
}

/// A container that logs its start and its number of starts.
fn writing() -> Value {
    with_program("i=0; while :; do echo $(date +%s) $i >> /root/written; i=$((i + 1)); sleep 0.1; done")
}

fn unknown(object: &StoppableContainer) -> bool {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|c| c.type_ == READY && c.status == "Unknown" && c.reason == reason::NODE_UNREACHABLE)
}

fn its_filesystem_is_unknown(object: &StoppableContainer) -> bool {
    condition(object, FILESYSTEM_READY).is_some_and(|(status, _, _)| status == "Unknown")
}

/// The number of lines of [`writing`] between two times. Lines must not be missing or come from
/// another start.
fn written_between(written: &str, from: Timestamp, to: Timestamp) -> Result<usize> {
    let mut meanwhile = 0;
    for (number, line) in written.lines().enumerate() {
        let (time, count) = line.split_once(' ').context("half a line")?;
        ensure!(count == number.to_string(), "line {number} is {line:?}");
        let time = Timestamp::from_second(time.parse()?)?;
        meanwhile += usize::from(from < time && time < to);
    }
    Ok(meanwhile)
}

/// All pods that ever existed in the namespace, by name.
struct Seen {
    pods: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
    watching: tokio::task::JoinHandle<()>,
}

// === impl Seen ===

impl Seen {
    fn watch(ns: &Namespace) -> Self {
        let pods = Arc::<Mutex<BTreeMap<_, BTreeSet<_>>>>::default();
        let events = watcher(ns.api::<Pod>(), watcher::Config::default())
            .default_backoff()
            .applied_objects();
        let kept = Arc::clone(&pods);
        let watching = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                if let (Ok(pod), Ok(mut kept)) = (event, kept.lock()) {
                    kept.entry(pod.name_any()).or_default().insert(uid_of(&pod));
                }
            }
        });
        Self { pods, watching }
    }

    fn pods(self) -> BTreeMap<String, BTreeSet<String>> {
        self.watching.abort();
        self.pods.lock().map(|pods| pods.clone()).unwrap_or_default()
    }
}

/// Whether Kubernetes keeps a pod on an unreachable node indefinitely.
fn stays(pod: &Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let mut unreachable = tolerations.filter(|t| t.key.as_deref() == Some("node.kubernetes.io/unreachable"));
    unreachable.next().is_some_and(|t| t.toleration_seconds.is_none()) && unreachable.next().is_none()
}
