//! What a container may do with devices and memory: the rules of its cgroup for devices, and its
//! limit of locked memory.

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::Namespace;

use super::plain_pod;
use super::variants::{template, with_device};
use super::vendor::{FUSE, LEGACY, Vendor, with_devices};
use crate::support::{run, start, stop};

/// Opens the device of the plugin, a node that the user made for the same device, and one for a
/// device that the container may not use.
const OPEN: &str = r#"
open() {
    if (exec 3<>"$1") 2>/tmp/refused; then echo "$1 opens"; else echo "$1: $(sed 's/.*: //' /tmp/refused)"; fi
}
[ -e /own-fuse ] || mknod /own-fuse c 10 229
[ -e /loop-control ] || mknod /loop-control c 10 237
stat -c '%n %F %a %u:%g %t:%T' /dev/fuse /own-fuse /loop-control 2>&1 || true
for device in /dev/fuse /own-fuse /loop-control; do open "$device"; done
"#;
/// The limit that the handler's specification has (`xtask/src/cluster/node_config.rs`).
const LOCKED: &str = "Max locked memory 5242880 6291456 bytes";

/// The device of FUSE by a device plugin. Its rule is the runtime's, for the container's cgroup.
#[tokio::test]
async fn i5_a_container_may_open_the_devices_that_a_plain_pod_may_open() {
    with_devices("gpu-cgroup", async |ns, _| opens_as_plain(ns).await).await;
}

async fn opens_as_plain(ns: &Namespace) -> Result<()> {
    let without = template("program");
    let with = with_device(&without, FUSE);
    let plain = plain_pod(ns, "with", &with, OPEN).await?;
    for words in [
        "/dev/fuse opens",
        "/own-fuse opens",
        "/loop-control: Operation not permitted",
    ] {
        ensure!(
            plain.contains(words),
            "a plain pod: {words:?} is missing: {plain}"
        );
    }
    run(ns, "kept", with).await?;
    for _ in 0..2 {
        let seen = ns.sh("kept", "main", OPEN).await?;
        ensure!(seen == plain, "plain pod:\n{plain}\nours:\n{seen}");
        stop(ns, "kept").await?;
        start(ns, "kept").await?;
    }
    let plain = plain_pod(ns, "without", &without, OPEN).await?;
    run(ns, "without", without).await?;
    let seen = ns.sh("without", "main", OPEN).await?;
    ensure!(
        seen == plain && seen.contains("/own-fuse: Operation not permitted"),
        "plain pod:\n{plain}\nours:\n{seen}"
    );
    Ok(())
}

/// RDMA and GPUs need locked memory, so nodes for them have another limit.
#[tokio::test]
async fn i5_the_limit_of_locked_memory_is_that_of_the_runtime_class() {
    with_devices("gpu-memlock", limit_as_plain).await;
}

async fn limit_as_plain(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    // The class has a hook, whose program is a part of the driver.
    vendor.install("550").await?;
    let mut template = template("program");
    template["spec"]["runtimeClassName"] = json!(LEGACY);
    let look = "grep 'locked memory' /proc/1/limits | tr -s ' ' | sed 's/ $//'; ulimit -l";
    let plain = plain_pod(ns, "limit", &template, look).await?;
    ensure!(plain == format!("{LOCKED}\n5120"), "a plain pod: {plain}");
    run(ns, "kept", template).await?;
    for _ in 0..2 {
        let seen = ns.sh("kept", "main", look).await?;
        ensure!(seen == plain, "plain pod: {plain}, ours: {seen}");
        stop(ns, "kept").await?;
        start(ns, "kept").await?;
    }
    Ok(())
}
