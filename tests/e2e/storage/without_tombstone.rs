//! Administrators delete what the objects depend on: their namespace, by force, and their kinds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, PostParams};
use kube::core::Request;
use kube::runtime::conditions::{is_crd_established, is_deleted};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace, patience};
use tokio::time::timeout;

use crate::support::release::{PATIENCE, Release};
use crate::support::{
    cleaned_up, data_directory, node_of, run, running, shell_template, start, stop, uid_of,
};

/// Removes the finalizers of the namespace, and then the namespace: its objects stay, without a
/// deletion of theirs, and nothing can be created beside them.
async fn force_away(ns: &Namespace) -> Result<()> {
    let namespaces = ns.cluster_api::<NamespaceObject>();
    let mut object = namespaces.get(&ns.name).await?;
    object.spec.get_or_insert_default().finalizers = None;
    let request = Request::new("/api/v1/namespaces").replace_subresource(
        "finalize",
        &ns.name,
        &PostParams::default(),
        serde_json::to_vec(&object)?,
    );
    ns.client
        .request::<NamespaceObject>(request?)
        .await
        .context("removing the finalizers of the namespace")?;
    // The first deletion marks it, and the second one finds no finalizer.
    for _ in 0..2 {
        namespaces.delete(&ns.name, &DeleteParams::default()).await?;
    }
    let uid = object.uid().unwrap_or_default();
    timeout(
        patience(PATIENCE),
        await_condition(namespaces, &ns.name, is_deleted(&uid)),
    )
    .await
    .context("the namespace stays")??;
    Ok(())
}

/// Makes the namespace again, under the same name.
async fn make_again(ns: &Namespace) -> Result<()> {
    let object = serde_json::from_value(json!({ "metadata": { "name": ns.name } }))?;
    ns.cluster_api::<NamespaceObject>()
        .create(&PostParams::default(), &object)
        .await?;
    Ok(())
}

/// The objects were not deleted, so their files stay. They continue in a namespace of that name.
#[tokio::test]
async fn i1_i11_files_outlive_a_namespace_that_was_removed_by_force() {
    in_namespace("forced", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
        let instance = ns.api::<StoppableContainerInstance>().get("kept").await?;
        force_away(&ns).await?;
        make_again(&ns).await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        let file = ns.sh("kept", "main", "cat /root/file").await?;
        ensure!(file == "kept", "{file}");
        let now = ns.api::<StoppableContainerInstance>().get("kept").await?;
        ensure!(now.uid() == instance.uid(), "another instance");
        ensure!(
            uid_of(&ns.pod_ready("kept").await?) != uid_of(&pod),
            "it was not stopped"
        );
        Ok(())
    })
    .await;
}

/// The API server deletes all objects of a kind with the kind, which are the deletions that remove
/// the files. Afterwards the operator serves the kinds again without a restart.
#[tokio::test]
async fn i11_a_kind_that_is_deleted_and_made_again_is_served_again() {
    alone_in_namespace("kinds", async |ns, _alone| {
        let release = Release::find(&ns.client).await?;
        let before = restarts(&release.controllers().await?);
        let pod = run(&ns, "erased", shell_template()).await?;
        let data = data_directory(&ns, "erased").await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let kinds = ns.cluster_api::<CustomResourceDefinition>();
        let names = [
            "stoppablecontainers.stoppablecontainer.xtlsoft.top",
            "stoppablecontainerinstances.stoppablecontainer.xtlsoft.top",
        ];
        let mut saved = Vec::new();
        for name in names {
            saved.push(kinds.get(name).await?);
        }
        let tested = async {
            for kind in &saved {
                kinds.delete(&kind.name_any(), &DeleteParams::default()).await?;
            }
            for kind in &saved {
                let (name, uid) = (kind.name_any(), kind.uid().unwrap_or_default());
                let gone = await_condition(kinds.clone(), &name, is_deleted(&uid));
                timeout(patience(PATIENCE), gone)
                    .await
                    .with_context(|| format!("{name} stays"))??;
            }
            ns.wait_gone::<Pod>("erased").await?;
            node.sh(&format!("test ! -e {data}"))
                .await
                .context("the files stay")?;
            Ok(())
        }
        .await;
        cleaned_up(tested, restore(&kinds, saved).await)?;
        run(&ns, "new", shell_template()).await?;
        ns.sh("new", "main", "echo new > /root/file").await?;
        stop(&ns, "new").await?;
        start(&ns, "new").await?;
        running(&ns, "new").await?;
        let file = ns.sh("new", "main", "cat /root/file").await?;
        ensure!(file == "new", "{file}");
        ensure!(
            restarts(&release.controllers().await?) == before,
            "a controller was started again"
        );
        ns.delete::<StoppableContainer>("new").await?;
        node.close().await
    })
    .await;
}

/// How often the containers of each pod were started again.
fn restarts(pods: &[Pod]) -> BTreeMap<String, i32> {
    let count = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum()
    };
    pods.iter().map(|pod| (pod.name_any(), count(pod))).collect()
}

/// Makes the kinds again, as they were, and waits until the API server serves them.
async fn restore(kinds: &Api<CustomResourceDefinition>, saved: Vec<CustomResourceDefinition>) -> Result<()> {
    for mut kind in saved {
        let name = kind.name_any();
        kind.metadata.resource_version = None;
        kind.metadata.uid = None;
        kind.status = None;
        if kinds.get_opt(&name).await?.is_none() {
            kinds.create(&PostParams::default(), &kind).await?;
        }
        let served = await_condition(kinds.clone(), &name, is_crd_established());
        timeout(patience(PATIENCE), served)
            .await
            .with_context(|| format!("{name} is not served"))??;
    }
    Ok(())
}
