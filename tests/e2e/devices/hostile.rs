//! An image that tries to lead what the agent makes for a device out of the container.

use anyhow::{Result, ensure};
use testkit::{Namespace, NodeShell, in_namespace};

use super::variants::{template, with_device};
use super::vendor::{GPU, Vendor, with_devices};
use crate::support::{run, start, stop};

/// The image's files of the loader are links out of the image, pipes, loops, or huge. The driver
/// works, and the node's files are as before.
#[tokio::test]
async fn i7_h12_an_image_whose_files_of_the_loader_lead_out_leaves_the_node_as_it_is() {
    in_namespace("gpu-hostile", async |ns| {
        with_devices(&ns, async |vendor| leaves_the_node(&ns, vendor).await).await
    })
    .await;
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
