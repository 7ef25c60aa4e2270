//! Deleting an object removes everything from the node and the API.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::names::{MAX_NAME_LENGTH, provider_pod_name};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{blocked, create, data_directory, node_of, run, running, shell_template, start, stop};

#[tokio::test]
async fn h18_i11_deletion_leaves_nothing_and_the_name_starts_fresh() {
    in_namespace("deletion", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        for stopped_first in [false, true] {
            ns.sh(
                "kept",
                "main",
                "echo secret > /root/file && mkdir -p /a/b/c && ln -s /etc /a/link",
            )
            .await?;
            if stopped_first {
                stop(&ns, "kept").await?;
            }
            delete_and_look(&ns, &node).await?;
            run(&ns, "kept", shell_template()).await?;
            ensure!(
                ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?.code != 0,
                "a new object sees old data"
            );
        }
        node.close().await
    })
    .await;
}

/// Names are not truncated or hashed: names of the maximum length that differ only in the last
/// character, and a name that equals the name of another object's provider.
#[tokio::test]
async fn h18_names_that_nearly_collide() {
    in_namespace("collisions", async |ns| {
        let long = "n".repeat(MAX_NAME_LENGTH - 1);
        let (first, second) = (format!("{long}1"), format!("{long}2"));
        for name in [&first, &second] {
            run(&ns, name, shell_template()).await?;
            ns.sh(name, "main", &format!("echo {name} > /root/file && sync"))
                .await?;
        }
        for name in [&first, &second] {
            stop(&ns, name).await?;
            start(&ns, name).await?;
            let file = ns.sh(name, "main", "cat /root/file").await?;
            ensure!(file == **name, "{name} sees {file}");
        }
        ns.delete::<StoppableContainer>(&first).await?;
        let file = ns.sh(&second, "main", "cat /root/file").await?;
        ensure!(file == *second, "a deletion took what is another's: {file}");
        let longer = create(&ns, &format!("{long}12"), true, shell_template()).await;
        let refused = longer.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("metadata.name"), "a longer name: {refused}");

        // Its pod would have the name of the other object's provider. The object reports the
        // conflict; the other one is not affected.
        run(&ns, "a", shell_template()).await?;
        create(&ns, &provider_pod_name("a"), true, shell_template()).await?;
        let message = blocked(
            &ns,
            &provider_pod_name("a"),
            CONSUMER_READY,
            reason::NAME_CONFLICT,
        )
        .await?;
        ensure!(
            message.contains("StoppableContainerInstance a "),
            "whose pod is it? {message}"
        );
        stop(&ns, "a").await?;
        start(&ns, "a").await?;
        ns.delete::<StoppableContainer>(&provider_pod_name("a")).await?;
        running(&ns, "a").await?;
        Ok(())
    })
    .await;
}

async fn delete_and_look(ns: &Namespace, node: &NodeShell<'_>) -> Result<()> {
    let data = data_directory(ns, "kept").await?;
    ensure!(
        node.sh(&format!("test -d {data} && echo there")).await? == "there",
        "{data} does not exist"
    );
    ns.delete::<StoppableContainer>("kept").await?;
    for pod in ["kept", &provider_pod_name("kept")] {
        ensure!(
            ns.api::<Pod>().get_opt(pod).await?.is_none(),
            "pod {pod} outlived its object"
        );
    }
    let instance = ns.api::<StoppableContainerInstance>().get_opt("kept").await?;
    ensure!(instance.is_none(), "the instance outlived its object");
    ensure!(
        node.sh(&format!("test ! -e {data} && echo gone")).await? == "gone",
        "{data} is still there"
    );
    let uid = data.rsplit('/').next().context("no UID")?;
    let mounts = node.mounts_with(uid).await?;
    ensure!(mounts.is_empty(), "mounts are left:\n{mounts}");
    Ok(())
}
