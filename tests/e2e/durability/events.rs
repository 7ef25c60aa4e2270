/*!
The files that remain after a failure of a container, its node or the product while the container
writes.

A program in the container writes numbered files to many places below `/`, syncs most of them, and
prints each completed file. Meanwhile the failure happens. When the container runs again, every file
that was synced and printed must exist with its content. `cargo xtask durability` repeats each row
and creates a table of the counts.
*/

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams};
use kube::{Api, ResourceExt};
use stoppablecontainer_api::conditions::READY;
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace};

use super::trial::{self, Happened, NAME, Row, number_of_trials, some_node};
use super::writing::{self, MAIN, Writing};
use crate::support::agents::Agents;
use crate::support::disk::Disk;
use crate::support::node::{Part, Partition, reboot};
use crate::support::{cleaned_up, container_id, node_of, phase, set_running, stop, uid_of};

/// Memory limit of the container in the row that exhausts it.
const MEMORY: &str = "96Mi";
/// Time span of a start over which the kills of the agent are spread. It is slightly longer than a
/// start.
const START: Duration = Duration::from_millis(1500);
const DISK_MEGABYTES: u32 = 64;

#[tokio::test]
async fn i1_durability_stop_and_start() {
    in_namespace("durable-stop", async |ns| {
        let event = async |_: &Writing, _: &Pod| {
            stop(&ns, NAME).await?;
            let since = Instant::now();
            set_running(&ns, NAME, true).await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("stop-and-start").run(&ns, event).await?;
        trial::sees_losses(&ns).await
    })
    .await;
}

#[tokio::test]
async fn i1_durability_out_of_memory() {
    in_namespace("durable-oom", async |ns| {
        let event = async |_: &Writing, _: &Pod| {
            let since = Instant::now();
            writing::signal(&ns, "USR1").await?;
            let killed = |pod: &Pod| {
                let statuses = pod
                    .status
                    .iter()
                    .flat_map(|s| s.container_statuses.iter().flatten());
                let mut ends = statuses.filter_map(|c| c.last_state.as_ref()?.terminated.as_ref());
                ends.any(|end| end.reason.as_deref() == Some("OOMKilled"))
            };
            ns.wait(NAME, "it was killed for its memory", killed).await?;
            Ok(Happened::interrupted(since))
        };
        let row = Row::new("out-of-memory").limited("memory", MEMORY);
        row.run(&ns, event).await
    })
    .await;
}

#[tokio::test]
async fn i1_durability_kill_9() {
    in_namespace("durable-kill", async |ns| {
        let at = some_node(&ns).await?;
        let node = NodeShell::on(&ns, &at).await?;
        let event = async |_: &Writing, pod: &Pod| {
            let since = Instant::now();
            node.kill_first(&container_id(pod, MAIN)?).await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("kill-9").at(&at).run(&ns, event).await
    })
    .await;
}

#[tokio::test]
async fn i1_durability_eviction() {
    in_namespace("durable-evicted", async |ns| {
        let event = async |_: &Writing, _: &Pod| {
            let since = Instant::now();
            ns.api::<Pod>().evict(NAME, &EvictParams::default()).await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("eviction").run(&ns, event).await
    })
    .await;
}

#[tokio::test]
async fn i1_durability_provider_deleted() {
    in_namespace("durable-provider", async |ns| {
        let event = async |_: &Writing, _: &Pod| {
            let name = provider_pod_name(NAME);
            let provider = ns.pod_ready(&name).await?;
            ns.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
            ns.other_pod_ready(&name, &uid_of(&provider)).await?;
            Ok(Happened::unnoticed())
        };
        Row::new("provider-deleted").run(&ns, event).await
    })
    .await;
}

/// Each trial kills at a later moment of the start.
#[tokio::test]
async fn i9_f17_durability_agent_killed_during_the_start() {
    alone_in_namespace("durable-agent-killed", async |ns, _alone| {
        let node = some_node(&ns).await?;
        let (shell, agents) = (NodeShell::on(&ns, &node).await?, Agents::find(&ns).await?);
        let (trial, trials) = (std::cell::Cell::new(0), number_of_trials());
        let event = async |_: &Writing, _: &Pod| {
            stop(&ns, NAME).await?;
            let pods = agents.pods().await?;
            let agent = pods.iter().find(|pod| node_of(pod).is_ok_and(|at| at == node));
            let agent = agent.context("no agent on the node")?;
            let process = shell.first(&container_id(agent, "node-agent")?).await?;
            let moment = START * trial.replace(trial.get() + 1) / trials;
            let kill = format!("sleep {}; kill -9 {process}", moment.as_secs_f32());
            shell
                .sh(&format!("setsid sh -c '{kill}' </dev/null >/dev/null 2>&1 &"))
                .await?;
            let since = Instant::now();
            set_running(&ns, NAME, true).await?;
            tokio::time::sleep(moment + Duration::from_millis(200)).await;
            // A new pod, because the kubelet delays the restart of containers that end often.
            let api = Api::<Pod>::namespaced(ns.client.clone(), &agent.namespace().unwrap_or_default());
            api.delete(&agent.name_any(), &DeleteParams::default().grace_period(0))
                .await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("agent-killed").at(&node).run(&ns, event).await
    })
    .await;
}

#[tokio::test]
async fn i9_durability_agent_upgraded() {
    alone_in_namespace("durable-upgrade", async |ns, _alone| {
        let agents = Agents::find(&ns).await?;
        let event = async |_: &Writing, _: &Pod| {
            agents.restart().await?;
            Ok(Happened::unnoticed())
        };
        Row::new("agent-upgraded").run(&ns, event).await
    })
    .await;
}

#[tokio::test]
async fn i9_f19_durability_kubelet_killed() {
    alone_in_namespace("durable-kubelet", async |ns, _alone| {
        restarted(&ns, "kubelet-killed", Part::Kubelet).await
    })
    .await;
}

#[tokio::test]
async fn i9_f19_durability_runtime_killed() {
    alone_in_namespace("durable-runtime", async |ns, _alone| {
        restarted(&ns, "runtime-killed", Part::Runtime).await
    })
    .await;
}

async fn restarted(ns: &Namespace, row: &'static str, part: Part) -> Result<()> {
    let at = some_node(ns).await?;
    let node = NodeShell::on(ns, &at).await?;
    let event = async |_: &Writing, _: &Pod| {
        part.restart(&node).await?;
        Ok(Happened::unnoticed())
    };
    Row::new(row).at(&at).run(ns, event).await
}

/// All processes of the node end at once. Unsynced data still reaches the disk, because the machine
/// below the node keeps running. The power cut covers the other case.
#[tokio::test]
async fn i1_durability_node_reboot() {
    alone_in_namespace("durable-reboot", async |ns, _alone| {
        let event = async |_: &Writing, pod: &Pod| {
            let since = Instant::now();
            reboot(&node_of(pod)?).await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("node-reboot").run(&ns, event).await
    })
    .await;
}

/// The node ends and loses all data that was not synced to its disk: it starts again on a copy of
/// the disk from the moment of the cut.
#[tokio::test]
async fn i1_f20_durability_power_cut() {
    alone_in_namespace("durable-power-cut", async |ns, alone| {
        for _ in 0..number_of_trials() {
            let at = some_node(&ns).await?;
            let node = NodeShell::on(&ns, &at).await?;
            let row = Row::new("power-cut").at(&at).on_a_disk()?;
            let disk = Disk::with_a_moment(&node, DISK_MEGABYTES, &alone).await?;
            let event = async |writing: &Writing, pod: &Pod| {
                let acknowledged = writing.acknowledged();
                let since = Instant::now();
                disk.cut_power(&node).await?;
                reboot(&node_of(pod)?).await?;
                Ok(Happened::interrupted(since).knowing(acknowledged))
            };
            let done = row.run_times(&ns, 1, event).await;
            disk.after(done, &ns, &node, &[NAME]).await?;
        }
        Ok(())
    })
    .await;
}

/// The disk is full while the container writes, and still full when the container starts again.
#[tokio::test]
async fn i1_f22_durability_disk_full() {
    alone_in_namespace("durable-disk-full", async |ns, alone| {
        let at = some_node(&ns).await?;
        let node = NodeShell::on(&ns, &at).await?;
        let row = Row::new("disk-full").at(&at).on_a_disk()?;
        let disk = Disk::plain(&node, DISK_MEGABYTES, &alone).await?;
        let event = async |_: &Writing, _: &Pod| {
            ns.sh(NAME, MAIN, "head -c 1G /dev/zero > /root/full 2>&1 || true")
                .await?;
            stop(&ns, NAME).await?;
            let since = Instant::now();
            set_running(&ns, NAME, true).await?;
            Ok(Happened::interrupted(since).then("rm /root/full"))
        };
        let done = row.run(&ns, event).await;
        disk.after(done, &ns, &node, &[NAME]).await
    })
    .await;
}

#[tokio::test]
async fn i1_f28_durability_node_cut_off() {
    alone_in_namespace("durable-cut-off", async |ns, _alone| {
        let event = async |_: &Writing, pod: &Pod| {
            let is = |status: &'static str| {
                move |object: &StoppableContainer| {
                    let mut conditions = object.status.iter().flat_map(|s| &s.conditions);
                    conditions.any(|c| c.type_ == READY && c.status == status)
                }
            };
            let partition = Partition::cut(&ns, &node_of(pod)?).await?;
            let unknown = ns.wait(NAME, "Ready is Unknown", is("Unknown")).await;
            cleaned_up(unknown, partition.heal().await)?;
            ns.wait(NAME, "Ready is True again", is("True")).await?;
            phase(&ns, NAME, Phase::Running).await?;
            Ok(Happened::unnoticed())
        };
        Row::new("node-cut-off").run(&ns, event).await
    })
    .await;
}
