//! What the agent cannot take over: an image that tries to lead what the agent makes for a device
//! out of the container, and a hook whose work is nothing without its process.

use anyhow::{Result, ensure};
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use testkit::{Namespace, NodeShell};

use super::variants::{template, with_device};
use super::vendor::{GPU, Vendor, with_devices};
use crate::support::{blocked_saying, create, run, start, stop};

/// The image's files of the loader are links out of the image, pipes, loops, or huge. The driver
/// works, and the node's files are as before.
#[tokio::test]
async fn i7_h12_an_image_whose_files_of_the_loader_lead_out_leaves_the_node_as_it_is() {
    with_devices("gpu-hostile", leaves_the_node).await;
}

async fn leaves_the_node(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    vendor.install("550").await?;
    let node = NodeShell::on(ns, &vendor.node).await?;
    let before = node.snapshot(&[]).await?;
    run(ns, "kept", with_device(&template("hostile"), GPU)).await?;
    for _ in 0..2 {
        let seen = ns
            .sh(
                "kept",
                "main",
                "dlopen libcuda.so.1 cuDriverVersion; dlopen libcuda.so cuDriverVersion; linked",
            )
            .await?;
        ensure!(seen == "libcuda.so.1 550\nlibcuda.so 550\nlinked 550", "{seen}");
        stop(ns, "kept").await?;
        start(ns, "kept").await?;
    }
    node.ensure_unchanged(&before).await
}

/// A hook that leaves a socket in the container's root. The object says so, and what to do, and the
/// container starts when that is done.
#[tokio::test]
async fn i5_i12_a_hook_that_leaves_a_socket_is_refused_by_name() {
    with_devices("gpu-socket", refused_by_name).await;
}

async fn refused_by_name(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    vendor.install("550").await?;
    let with = |value: &str| {
        let mut template = with_device(&template("program"), GPU);
        template["spec"]["containers"][0]["env"] = json!([{"name": "FAKE_GPU_SOCKET", "value": value}]);
        template
    };
    create(ns, "kept", true, with("1")).await?;
    let words = "made the socket /var/lib/fake-gpu/socket there, and a socket is nothing without the file that its \
                 process made; let the driver mount it, or remove the device from the template";
    let waits = reason::WAITING_FOR_FILESYSTEM;
    blocked_saying(ns, "kept", CONSUMER_READY, waits, words).await?;
    stop(ns, "kept").await?;
    let template = json!({"spec": {"template": with("0")}});
    ns.patch::<StoppableContainer>("kept", template).await?;
    start(ns, "kept").await?;
    let seen = ns.sh("kept", "main", "ls /var/lib/fake-gpu").await?;
    ensure!(seen == "empty\nlink\nnull\npipe\nsettings", "{seen}");
    Ok(())
}
