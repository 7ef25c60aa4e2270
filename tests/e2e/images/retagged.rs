//! The image of kept data stays the same, also if its repository does not have a digest for it, as
//! for an image that was loaded into the node. Such an image is used by name, and a different image
//! of that name is detected (F25). `pinned.rs` covers images with a digest.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{FILESYSTEM_READY, PROVIDER_READY};
use stoppablecontainer_api::names::provider_pod_name;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, NodeShell, fact, in_namespace};

use crate::support::kubelet::with_setting;
use crate::support::{
    blocked, cleaned_up, node_of, phase, run, running, set_running, shell_template, start, stop, uid_of,
};

/// The tag that the test moves. Other tests do not use it.
const TAG: &str = "docker.io/test/retagged:1";
const FIRST: &str = "docker.io/library/ubuntu:22.04";
const OTHER: &str = "docker.io/test/named-user:1";

/// The row of the table of releases.
const RENAMED: &str = "an image that the kubelet pulled under another name, and that got this name by hand, with \
     `imagePullPolicy: IfNotPresent`";

/// While the container is stopped, its tag moves to another image, and then the old image is
/// removed from the node and all registries. The container never starts on the other image, and
/// starts again when the old image is available.
#[tokio::test]
async fn f25_i1_an_image_that_is_pruned_or_tagged_anew_while_stopped() {
    in_namespace("retagged", async |ns| {
        // The images of both tags, which the test needs, are on the node.
        let mut images = shell_template();
        images["metadata"] = json!({"name": "images"});
        images["spec"]["containers"] = json!([
            {"name": "first", "image": FIRST, "command": ["/bin/sleep", "infinity"]},
            {"name": "other", "image": OTHER, "command": ["/bin/sleep", "infinity"]},
        ]);
        let pod = ns.create_json::<Pod>(images).await?;
        let pod = ns
            .pod_ready(pod.metadata.name.as_deref().unwrap_or_default())
            .await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let ctr = std::env::var("E2E_CTR").unwrap_or_else(|_| "ctr".to_owned());
        let image = async |args: &str| node.sh(&format!("{ctr} --namespace k8s.io images {args}")).await;
        let tested = async {
            image(&format!("tag --force {FIRST} {TAG}")).await?;
            run(&ns, "kept", template(&node_of(&pod)?)).await?;
            let setting = with_setting(&node_of(&pod)?, "imagePullCredentialsVerificationPolicy").await?;
            fact(RENAMED, &format!("the kubelet uses it{setting}"));
            ns.sh("kept", "main", "echo kept > /root/file && sync").await?;
            stop(&ns, "kept").await?;

            // The provider keeps the image open, so its name can be removed and refer to another
            // image later.
            image(&format!("tag --force {OTHER} {TAG}")).await?;
            start(&ns, "kept").await?;
            same(&ns).await?;
            stop(&ns, "kept").await?;

            replace_provider(&ns).await?;
            let message = blocked(&ns, "kept", FILESYSTEM_READY, "ImageChanged").await?;
            set_running(&ns, "kept", true).await?;
            phase(&ns, "kept", Phase::Failed).await?;
            ensure!(
                ns.api::<Pod>().get_opt("kept").await?.is_none(),
                "it started on another image"
            );

            // The command in the message, verbatim.
            let by_digest = message
                .find("image to ")
                .map(|at| &message[at + "image to ".len()..]);
            let by_digest = by_digest.and_then(|rest| rest.split_whitespace().next());
            let by_digest = by_digest.with_context(|| format!("what image? {message}"))?;
            set_image(&ns, by_digest.trim_end_matches(['.', ';', ','])).await?;
            running(&ns, "kept").await?;
            same(&ns).await?;
            stop(&ns, "kept").await?;
            set_image(&ns, TAG).await?;
            blocked(&ns, "kept", FILESYSTEM_READY, "ImageChanged").await?;
            set_running(&ns, "kept", true).await?;

            image(&format!("remove {TAG}")).await?;
            replace_provider(&ns).await?;
            let pulls = |reason: &str| ["ErrImagePull", "ImagePullBackOff"].contains(&reason);
            ns.wait(
                "kept",
                "the image cannot be pulled",
                |object: &StoppableContainer| {
                    crate::support::condition(object, PROVIDER_READY)
                        .is_some_and(|(status, reason, _)| status == "False" && pulls(reason))
                },
            )
            .await?;
            ensure!(
                ns.api::<Pod>().get_opt("kept").await?.is_none(),
                "it started without its image"
            );

            image(&format!("tag --force {FIRST} {TAG}")).await?;
            // The test does not wait for the kubelet's back-off.
            replace_provider(&ns).await?;
            running(&ns, "kept").await?;
            same(&ns).await
        };
        let tested = tested.await;
        // `ctr` ignores a missing image.
        cleaned_up(tested, image(&format!("remove {TAG}")).await.map(drop))?;
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
    let template = ns.api::<StoppableContainer>().get("kept").await?.spec.template;
    let mut template = serde_json::to_value(&template)?;
    template["spec"]["containers"][0]["image"] = json!(image);
    ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": template}}))
        .await
        .map(drop)
}

async fn replace_provider(ns: &Namespace) -> Result<()> {
    let name = provider_pod_name("kept");
    let provider = ns.api::<Pod>().get(&name).await?;
    ns.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
    ns.wait(&name, "another provider", |pod: &Pod| {
        uid_of(pod) != uid_of(&provider)
    })
    .await?;
    Ok(())
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
