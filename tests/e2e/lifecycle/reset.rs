//! Resets that the user asks for: an empty filesystem at any time.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::ANNOTATION_RECOVERY;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{data_directory, node_of, phase, run, running, shell_template, start, stop, told};

async fn answer(ns: &Namespace, with: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION_RECOVERY: with}}});
    ns.patch::<StoppableContainer>("kept", patch).await?;
    Ok(())
}

async fn instance_uid(ns: &Namespace) -> Result<String> {
    let object = ns.api::<StoppableContainer>().get("kept").await?;
    let uid = object.status.and_then(|status| status.instance_uid);
    uid.context("no status.instanceUid")
}

/// Waits until the object has another instance than this.
async fn another_instance(ns: &Namespace, than: &str) -> Result<String> {
    let has_another = |object: &StoppableContainer| {
        let uid = object
            .status
            .as_ref()
            .and_then(|status| status.instance_uid.as_deref());
        uid.is_some_and(|uid| uid != than)
    };
    ns.wait("kept", "it has another instance", has_another).await?;
    instance_uid(ns).await
}

/// The files are gone, also from the node, and the container runs on an empty filesystem. The
/// annotation stays, and does nothing any more.
#[tokio::test]
async fn i1_the_user_begins_with_an_empty_filesystem_at_any_time() {
    in_namespace("reset", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let data = data_directory(&ns, "kept").await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let first = instance_uid(&ns).await?;

        answer(&ns, &format!("reset-{first}")).await?;
        let second = another_instance(&ns, &first).await?;
        running(&ns, "kept").await?;
        let file = ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?;
        ensure!(file.code != 0, "the file is still there");
        let left = node.sh(&format!("ls -d {data} 2>/dev/null || echo gone")).await?;
        ensure!(left == "gone", "the data is still on the node: {left}");
        told(&ns, "kept", reason::RESETTING).await?;

        // The old answer, and one with another identifier.
        ns.sh("kept", "main", "echo again > /root/file").await?;
        answer(&ns, "reset-00000000-0000-4000-8000-000000000000").await?;
        answer(&ns, &format!("reset-{first}")).await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        ensure!(instance_uid(&ns).await? == second, "an old answer reset it");
        let file = ns.sh("kept", "main", "cat /root/file").await?;
        ensure!(file == "again", "{file}");

        // The same for one that is stopped, which stays so.
        stop(&ns, "kept").await?;
        answer(&ns, &format!("reset-{second}")).await?;
        another_instance(&ns, &second).await?;
        phase(&ns, "kept", Phase::Stopped).await?;
        start(&ns, "kept").await?;
        let file = ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?;
        ensure!(file.code != 0, "the file is back");
        node.close().await
    })
    .await;
}
