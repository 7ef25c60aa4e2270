//! The kept filesystem as a resource: lost or damaged data, usage, limits, and the disk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace, kubectl, patience};

use crate::support::agents::Agents;
use crate::support::metrics::scraped;
use crate::support::{
    blocked, cleaned_up, condition, create, data_directory, node_of, phase, run, running, set_running,
    shell_template, start, stop, told,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// Interval for reading metrics, which cannot be watched.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes by which the status may be behind.
const UNTOLD: i64 = 1 << 20;

/// A condition reports lost data; an empty root never replaces it, and the user resets it with the
/// command in the condition. The remaining annotation does not affect a later loss.
#[tokio::test]
async fn i1_lost_data_is_given_up_once_by_its_user() {
    in_namespace("lost", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let upper = format!("{}/upper", data_directory(&ns, "kept").await?);

        stop(&ns, "kept").await?;
        node.sh(&format!("rm -r {upper}")).await?;
        set_running(&ns, "kept", true).await?;
        let first = blocked(&ns, "kept", "FilesystemReady", "FilesystemLost").await?;
        phase(&ns, "kept", Phase::Failed).await?;
        ensure!(
            !first.contains("recovery=accept-"),
            "there is nothing to accept: {first}"
        );
        told(&ns, "kept", "FilesystemLost").await?;
        decide(&ns, &first, "reset").await?;
        running(&ns, "kept").await?;
        let file = ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?;
        ensure!(file.code != 0, "the file is back from nowhere");

        // Data whose record is missing: the same failure again, and the old answer is still in the
        // annotation.
        ns.sh("kept", "main", "echo again > /root/file").await?;
        stop(&ns, "kept").await?;
        node.sh(&format!("rm {}", upper.replace("/upper", "/record")))
            .await?;
        set_running(&ns, "kept", true).await?;
        let second = blocked(&ns, "kept", "FilesystemReady", "FilesystemLost").await?;
        ensure!(
            command(&first, "reset")? != command(&second, "reset")?,
            "one decision for two failures"
        );
        let again = node.sh(&format!("cat {upper}/root/file")).await?;
        ensure!(again == "again", "an old decision deleted data: {again}");
        decide(&ns, &second, "accept").await?;
        running(&ns, "kept").await?;
        ensure!(
            ns.sh("kept", "main", "cat /root/file").await? == "again",
            "what was accepted is not there"
        );
        node.close().await
    })
    .await;
}

/// A backup without extended attributes does not have the marks of deleted files. The agent rejects
/// it, and uses a backup with them as soon as it exists.
#[tokio::test]
async fn h26_i1_a_copy_without_extended_attributes_is_no_backup() {
    in_namespace("restored", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let data = data_directory(&ns, "kept").await?;
        // A replaced directory, so the content of the image's directory must not be visible.
        ns.sh(
            "kept",
            "main",
            "rm -r /etc/skel && mkdir /etc/skel && echo kept > /etc/skel/file && sync",
        )
        .await?;
        stop(&ns, "kept").await?;
        let restore = async |options: &str| {
            let archive = format!("tar --create {options} --directory={data}.saved .");
            let unpack = format!("tar --extract {options} --directory={data}");
            node.sh(&format!(
                "rm -rf {data}; mkdir -m 0700 {data}; {archive} | {unpack}"
            ))
            .await
        };
        node.sh(&format!("mv {data} {data}.saved")).await?;
        let tested = async {
            restore("--numeric-owner").await?;
            set_running(&ns, "kept", true).await?;
            let message = blocked(&ns, "kept", "FilesystemReady", "FilesystemLost").await?;
            ensure!(
                message.contains("without its extended attributes"),
                "what is the matter: {message}"
            );
            ensure!(
                command(&message, "accept").is_ok(),
                "its user may know better: {message}"
            );
            restore("--numeric-owner --xattrs --xattrs-include=*").await?;
            running(&ns, "kept").await?;
            let seen = ns
                .sh("kept", "main", "ls -A /etc/skel; cat /etc/skel/file")
                .await?;
            ensure!(seen == "file\nkept", "not what was saved: {seen}");
            Ok(())
        };
        let tested = tested.await;
        let removed = node.sh(&format!("rm -rf {data}.saved")).await;
        cleaned_up(tested, removed.map(drop))?;
        node.close().await
    })
    .await;
}

/// Data is used with another image only if the user accepts that. The files are then on the new
/// image.
#[tokio::test]
async fn f25_another_image_is_accepted_by_its_user() {
    in_namespace("other-image", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file && ! id app")
            .await?;
        stop(&ns, "kept").await?;
        let containers = json!([{
            "name": "main", "image": "test/named-user:1", "command": ["/bin/sleep", "infinity"],
            "securityContext": {"runAsUser": 0},
        }]);
        ns.patch::<StoppableContainer>(
            "kept",
            json!({"spec": {"template": {"spec": {"containers": containers}}}}),
        )
        .await?;
        let message = blocked(&ns, "kept", "FilesystemReady", "ImageChanged").await?;
        set_running(&ns, "kept", true).await?;
        phase(&ns, "kept", Phase::Failed).await?;
        ensure!(
            ns.api::<Pod>().get_opt("kept").await?.is_none(),
            "started on another image"
        );
        decide(&ns, &message, "accept").await?;
        running(&ns, "kept").await?;
        let seen = ns.sh("kept", "main", "cat /root/file; id -un 1000").await?;
        ensure!(
            seen == "kept\napp",
            "not the kept files on the present image: {seen}"
        );
        // From now on it is the recorded image.
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        Ok(())
    })
    .await;
}

/// Written data counts in the status and in the agent's metrics. Over the limit the container is
/// stopped with the kubelet's reason, and keeps its files. It starts again when the user raises the
/// limit or resets the files.
#[tokio::test]
async fn i12_a_filesystem_over_its_limit_stops_its_container() {
    in_namespace("limit", async |ns| {
        let limited = |limit: &str| {
            let mut template = shell_template();
            template["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": limit}});
            template
        };
        run(&ns, "kept", limited("16Mi")).await?;
        let write = |size: &str| format!("head -c {size} /dev/zero > /root/file-{size}; sync");
        // The container may be stopped before the command ends.
        let _ = ns.exec("kept", "main", &["/bin/sh", "-c", &write("20M")]).await;
        let message = blocked(&ns, "kept", "ConsumerReady", "Evicted").await?;
        let words = "Container main exceeded its local ephemeral storage limit \"16Mi\". ";
        ensure!(message.starts_with(words), "not the kubelet's words: {message}");
        phase(&ns, "kept", Phase::Failed).await?;
        told(&ns, "kept", "Evicted").await?;
        ensure!(
            ns.api::<Pod>().get_opt("kept").await?.is_none(),
            "it was started again"
        );
        measured_alike(&ns, "kept", 20_000_000).await?;

        let containers = limited("32Mi")["spec"]["containers"].clone();
        ns.patch::<StoppableContainer>(
            "kept",
            json!({"spec": {"template": {"spec": {"containers": containers}}}}),
        )
        .await?;
        running(&ns, "kept").await?;
        ensure!(
            ns.sh("kept", "main", "wc -c < /root/file-20M").await? == "20971520",
            "the file changed"
        );
        // Small again: the agent measures when the container stops, and detects the stop.
        ns.sh("kept", "main", "rm /root/file-20M").await?;
        stop(&ns, "kept").await?;
        ns.wait("kept", "its usage was measured", |object: &StoppableContainer| {
            bytes(object).is_some_and(|bytes| bytes < 1_000_000)
        })
        .await?;
        start(&ns, "kept").await?;

        let _ = ns.exec("kept", "main", &["/bin/sh", "-c", &write("40M")]).await;
        let message = blocked(&ns, "kept", "ConsumerReady", "Evicted").await?;
        decide(&ns, &message, "reset").await?;
        running(&ns, "kept").await?;
        let file = ns.exec("kept", "main", &["/bin/ls", "/root/file-40M"]).await?;
        ensure!(file.code != 0, "a reset that kept the file");
        Ok(())
    })
    .await;
}

/// On a disk that is almost full, the agent does not create new filesystems and warns running
/// containers. Both states clear automatically.
#[tokio::test]
async fn f22_a_nearly_full_disk_takes_nothing_new_and_warns() {
    alone_in_namespace("disk-low", async |ns, _alone| {
        run(&ns, "runs", shell_template()).await?;
        let agents = Agents::find(&ns).await?;
        // A disk never has all its space free.
        set_minimum_free(&agents, "100%").await?;
        let checked = full(&ns).await;
        cleaned_up(checked, agents.run_with(&agents.arguments).await)?;
        running(&ns, "new").await?;
        ns.wait(
            "runs",
            "the warning is taken back",
            |object: &StoppableContainer| {
                condition(object, "FilesystemReady").is_some_and(|(_, reason, _)| reason == "AsRequested")
            },
        )
        .await?;
        Ok(())
    })
    .await;
}

async fn full(ns: &Namespace) -> Result<()> {
    create(ns, "new", true, shell_template()).await?;
    let message = blocked(ns, "new", "FilesystemReady", "InsufficientDisk").await?;
    ensure!(
        message.contains("has less than 100% free (minimumFree) on the disk of /")
            && message.contains("Free space"),
        "what is the matter and what to do: {message}"
    );
    told(ns, "new", "InsufficientDisk").await?;
    ns.wait("runs", "it is warned", |object: &StoppableContainer| {
        condition(object, "FilesystemReady")
            .is_some_and(|(status, reason, _)| status == "True" && reason == "DiskLow")
    })
    .await?;
    told(ns, "runs", "DiskLow").await?;
    phase(ns, "runs", Phase::Running).await.map(drop)
}

/// Runs the agents with another minimum of free space.
async fn set_minimum_free(agents: &Agents, amount: &str) -> Result<()> {
    let mut arguments = agents.arguments.clone();
    arguments.retain(|argument| !argument.starts_with("--minimum-free="));
    arguments.push(format!("--minimum-free={amount}"));
    agents.run_with(&arguments).await
}

// === Observations of tests ===

/// The command for a recovery option in a condition's message.
fn command(message: &str, verb: &str) -> Result<String> {
    let found = message
        .split("kubectl ")
        .skip(1)
        .find(|c| c.contains(&format!("/recovery={verb}-")));
    let line = found.with_context(|| format!("no command to {verb}: {message}"))?;
    Ok(line.split(". ").next().unwrap_or(line).to_owned())
}

/// Runs the command.
async fn decide(ns: &Namespace, message: &str, verb: &str) -> Result<()> {
    let line = command(message, verb)?;
    ensure!(line.contains(&ns.name), "not for this namespace: {line}");
    let args: Vec<&str> = line.split_whitespace().collect();
    kubectl(&args, "").await?.success().map(drop)
}

fn bytes(object: &StoppableContainer) -> Option<i64> {
    Some(object.status.as_ref()?.filesystem?.usage?.bytes)
}

/// Waits until status and metrics report at least this usage of a stopped container. They may
/// differ by the amount that does not cause a status write. A measurement may happen between the
/// two reads.
async fn measured_alike(ns: &Namespace, name: &str, least: i64) -> Result<()> {
    let deadline = Instant::now() + patience(PATIENCE);
    loop {
        let told = bytes(&ns.api::<StoppableContainer>().get(name).await?).unwrap_or_default();
        let exported = exported(ns, "stoppablecontainer_filesystem_bytes", name)
            .await?
            .unwrap_or_default();
        let alike = (told - exported).abs() <= UNTOLD.max(exported / 20);
        if told >= least && exported >= least && alike {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the status says {told}, the agent's metrics {exported}, at least {least} were written"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// A value from the agents' metrics about a container of the test, if an agent has it.
async fn exported(ns: &Namespace, metric: &str, name: &str) -> Result<Option<i64>> {
    let labels = format!("{metric}{{namespace=\"{}\",name=\"{name}\"}} ", ns.name);
    for text in scraped(ns).await? {
        if let Some(number) = text.lines().find_map(|line| line.strip_prefix(&labels)) {
            return Ok(Some(number.parse()?));
        }
    }
    Ok(None)
}
