//! The controller creates providers from the digest that the data was created with, not from the
//! tag's current digest (F25).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, PROVIDER_READY};
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{Namespace, NodeShell, alone_in_namespace};

use crate::support::{
    blocked, cleaned_up, condition, node_of, run, running, set_running, shell_template, start, stop, uid_of,
};

/// The repository and tag that the test moves; no other test uses them.
const REPOSITORY: &str = "docker.io/test/pinned";
const TAG: &str = "docker.io/test/pinned:1";
const FIRST: &str = "docker.io/library/ubuntu:22.04";
const OTHER: &str = "docker.io/test/named-user:1";

/// Runs alone, because it changes the name of an image that other tests use.
///
/// The test moves the tag while the container is stopped, and the controller creates a new
/// provider. The container starts with the old image. When that image cannot be pulled any more,
/// the condition has the kubelet's message and the options, and the container does not run with the
/// new image.
#[tokio::test]
async fn f25_i1_a_tag_that_was_moved_brings_no_other_image_under_the_data() {
    alone_in_namespace("pinned", async |ns, _alone| {
        // Both images that the test needs are on the node.
        let mut images = shell_template();
        images["metadata"] = json!({"name": "images"});
        images["spec"]["containers"] = json!([
            {"name": "first", "image": FIRST, "command": ["/bin/sleep", "infinity"]},
            {"name": "other", "image": OTHER, "command": ["/bin/sleep", "infinity"]},
        ]);
        ns.create_json::<Pod>(images).await?;
        let place = node_of(&ns.pod_ready("images").await?)?;
        let node = NodeShell::on(&ns, &place).await?;
        let ctr = std::env::var("E2E_CTR").unwrap_or_else(|_| "ctr".to_owned());
        let image = async |args: &str| node.sh(&format!("{ctr} --namespace k8s.io images {args}")).await;
        let listed = image(&format!("list name=={FIRST}")).await?;
        let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
        let exact = format!(
            "{REPOSITORY}@{}",
            digest.with_context(|| format!("no digest: {listed}"))?
        );
        let tested = async {
            // As if it had been pulled from that repository.
            image(&format!("tag --force {FIRST} {TAG}")).await?;
            image(&format!("tag --force {FIRST} {exact}")).await?;
            run(&ns, "kept", template(&place)).await?;
            ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
            stop(&ns, "kept").await?;

            image(&format!("tag --force {OTHER} {TAG}")).await?;
            replace_provider(&ns).await?;
            start(&ns, "kept").await?;
            ensure!(
                image_of_provider(&ns).await? == exact,
                "the provider is not made of the digest"
            );
            same(&ns).await?;
            stop(&ns, "kept").await?;

            image(&format!("remove {exact}")).await?;
            replace_provider(&ns).await?;
            set_running(&ns, "kept", true).await?;
            let told = |object: &StoppableContainer| {
                condition(object, PROVIDER_READY).is_some_and(|(status, reason, message)| {
                    status == "False"
                        && ["ErrImagePull", "ImagePullBackOff"].contains(&reason)
                        && message.contains(&exact)
                        && message.contains("name another image in the template")
                })
            };
            ns.wait("kept", "the digest cannot be had, with the way out", told)
                .await?;
            ensure!(
                ns.api::<Pod>().get_opt("kept").await?.is_none(),
                "it started on another image"
            );

            // The option for the files.
            set_image(&ns, OTHER).await?;
            blocked(&ns, "kept", FILESYSTEM_READY, "ImageChanged").await?;
            image(&format!("tag --force {FIRST} {exact}")).await?;
            set_image(&ns, TAG).await?;
            running(&ns, "kept").await?;
            same(&ns).await
        };
        let tested = tested.await;
        let tested = cleaned_up(tested, image(&format!("remove {TAG}")).await.map(drop));
        cleaned_up(tested, image(&format!("remove {exact}")).await.map(drop))?;
        node.close().await
    })
    .await;
}

fn template(node: &str) -> Value {
    let mut template = shell_template();
    template["spec"]["containers"][0]["image"] = json!(TAG);
    template["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    template["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    template
}

async fn set_image(ns: &Namespace, image: &str) -> Result<()> {
    let container = json!({
        "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sleep", "infinity"],
    });
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    ns.patch::<StoppableContainer>("kept", patch).await.map(drop)
}

async fn image_of_provider(ns: &Namespace) -> Result<String> {
    let pod = ns.api::<Pod>().get(&provider_pod_name("kept")).await?;
    let spec = pod.spec.context("no spec")?;
    spec.containers[0].image.clone().context("no image")
}

async fn replace_provider(ns: &Namespace) -> Result<()> {
    let name = provider_pod_name("kept");
    let provider = ns.api::<Pod>().get(&name).await?;
    ns.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
    ns.wait(&name, "another provider", |pod: &Pod| {
        uid_of(pod) != uid_of(&provider)
    })
    .await
    .map(drop)
}

/// The kept file, on the image that it was created with.
async fn same(ns: &Namespace) -> Result<()> {
    let seen = ns
        .sh("kept", "main", "cat /root/file; id app 2>&1 || true")
        .await?;
    ensure!(
        seen.starts_with("kept\n") && seen.contains("no such user"),
        "not the kept file on the first image: {seen}"
    );
    Ok(())
}
