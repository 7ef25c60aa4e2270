//! The vendor of the fake device: a pod with its device plugin, which also installs the driver.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::{Namespace, NodeShell};

use crate::support::nodes::devices_are;
use crate::support::{cleaned_up, node_of};

/// The device's resource.
pub(super) const GPU: &str = "fake.example.com/gpu";
/// How many the plugin offers (`crates/fake-gpu`).
pub(super) const DEVICES: u32 = 16;
/// Directories of the node: the driver, specifications of CDI, sockets of device plugins.
const DRIVER: &str = "/run/fake-gpu";
const SPECIFICATIONS: &str = "/run/cdi";
const PLUGINS: &str = "/var/lib/kubelet/device-plugins";
/// The pod.
const VENDOR: &str = "vendor";

pub(super) struct Vendor<'a> {
    ns: &'a Namespace,
}

/// Gives a node devices for as long as `test` runs. The driver is the test's to install.
pub(super) async fn with_devices(
    ns: &Namespace,
    test: impl AsyncFnOnce(&Vendor<'_>) -> Result<()>,
) -> Result<()> {
    let vendor = Vendor { ns };
    vendor.create().await?;
    let tested = async {
        let node = node_of(&ns.pod_ready(VENDOR).await?)?;
        devices_are(ns, &node, GPU, DEVICES).await?;
        test(&vendor).await
    };
    cleaned_up(tested.await, vendor.remove().await)
}

// === impl Vendor ===

impl Vendor<'_> {
    async fn create(&self) -> Result<()> {
        let paths = [DRIVER, SPECIFICATIONS, PLUGINS];
        let names = ["driver", "specifications", "plugins"];
        let each = || names.iter().zip(paths);
        let volumes = each().map(
            |(name, path)| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}),
        );
        let mounts = each().map(|(name, path)| json!({"name": name, "mountPath": path}));
        self.ns
            .create_json::<Pod>(json!({
                "metadata": {"name": VENDOR},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "volumes": volumes.collect::<Vec<_>>(),
                    "containers": [{
                        "name": "main", "image": "docker.io/test/fake-gpu:1", "args": ["plugin", PLUGINS],
                        "securityContext": {"privileged": true}, "volumeMounts": mounts.collect::<Vec<_>>(),
                    }],
                },
            }))
            .await?;
        Ok(())
    }

    /// Replaces the driver, as an upgrade of the node does.
    pub(super) async fn install(&self, version: &str) -> Result<()> {
        let command = ["/fake-gpu", "install", DRIVER, SPECIFICATIONS, version];
        let output = self.ns.exec(VENDOR, "main", &command).await?;
        ensure!(output.code == 0, "installing the driver {version}: {output:?}");
        Ok(())
    }

    /// Removes the pod and everything that it put on its node. The resource stays with the number
    /// zero: the kubelet does so on purpose (`MachineInfo` in its `pkg/kubelet/nodestatus`).
    async fn remove(&self) -> Result<()> {
        let pod = self.ns.api::<Pod>().get(VENDOR).await?;
        self.ns.delete::<Pod>(VENDOR).await?;
        let node = node_of(&pod)?;
        let shell = NodeShell::on(self.ns, &node).await?;
        let script = format!(
            "rm -rf {DRIVER} {SPECIFICATIONS}/fake-gpu.json {PLUGINS}/fake-gpu.sock
             rmdir {SPECIFICATIONS} 2>/dev/null || ls {SPECIFICATIONS}"
        );
        shell.sh(&script).await?;
        devices_are(self.ns, &node, GPU, 0).await
    }
}
