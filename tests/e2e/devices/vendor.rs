//! The vendor of the fake device: a pod with its device plugins and its driver of claims, which
//! also installs the driver.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};
use testkit::{Namespace, NodeShell, in_namespace};
use tokio::sync::Mutex;

use super::variants;
use crate::support::nodes::devices_are;
use crate::support::{cleaned_up, forget, node_of};

/// Resources of the device plugins: one answers with devices of CDI, one with annotations that name
/// such devices, one with devices, mounts and variables. One more has two devices of CDI, and one
/// gives `/dev/fuse`.
pub(crate) const GPU: &str = "fake.example.com/gpu";
pub(super) const NOTED: &str = "fake.example.com/noted";
pub(super) const CARD: &str = "fake.example.com/card";
pub(super) const PAIR: &str = "fake.example.com/pair";
pub(super) const FUSE: &str = "fake.example.com/fuse";
/// The template of claims.
pub(super) const CLAIM_TEMPLATE: &str = "gpu";
/// The class of pods that a hook of the runtime gives devices to. Its handler is the cluster's.
pub(super) const LEGACY: &str = "legacy-gpu";
/// How many devices the first three plugins offer (`crates/fake-gpu`).
pub(super) const DEVICES: u32 = 16;
/// All resources, and how many devices their plugins offer.
const OFFERED: [(&str, u32); 5] = [
    (GPU, DEVICES),
    (NOTED, DEVICES),
    (CARD, DEVICES),
    (PAIR, 2),
    (FUSE, 2),
];
/// Directories of the node: the driver, specifications of CDI, sockets of device plugins, of
/// plugins that register, and of the driver of claims.
const DRIVER: &str = "/run/fake-gpu";
const SPECIFICATIONS: &str = "/run/cdi";
const PLUGINS: &str = "/var/lib/kubelet/device-plugins";
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";
const CLAIMS: &str = "/var/lib/kubelet/plugins/fake-gpu";
/// The pod.
const VENDOR: &str = "vendor";
const IMAGE: &str = "docker.io/test/fake-gpu:1";

/// A node has one driver, and each test installs its own.
static DRIVERS: Mutex<()> = Mutex::const_new(());

pub(crate) struct Vendor<'a> {
    ns: &'a Namespace,
    /// The node with the devices.
    pub(crate) node: String,
}

/// Runs a test in a namespace of its own, and gives a node devices meanwhile. The driver is the
/// test's to install.
pub(super) async fn with_devices(name: &str, test: impl AsyncFnOnce(&Namespace, &Vendor<'_>) -> Result<()>) {
    in_namespace(name, async |ns| {
        require_cdi(&ns).await?;
        devices_in(&ns, test).await
    })
    .await;
}

/// The same in a namespace that is there, also on nodes without CDI.
pub(crate) async fn devices_in(
    ns: &Namespace,
    test: impl AsyncFnOnce(&Namespace, &Vendor<'_>) -> Result<()>,
) -> Result<()> {
    let _driver = DRIVERS.lock().await;
    create(ns).await?;
    let vendor = Vendor {
        ns,
        node: node_of(&ns.pod_ready(VENDOR).await?)?,
    };
    let tested = async {
        for (resource, count) in OFFERED {
            devices_are(ns, &vendor.node, resource, count).await?;
        }
        ns.kubectl_with_input(&["apply", "-f", "-"], &vendor.objects().to_string())
            .await?
            .success()?;
        test(ns, &vendor).await
    };
    cleaned_up(tested.await, vendor.remove().await)
}

/// The container runtimes of all nodes give containers devices of CDI. Debian's containerd 1.6 does
/// not know them, and `cargo xtask test` leaves the tests out there.
async fn require_cdi(ns: &Namespace) -> Result<()> {
    for node in ns.cluster_api::<Node>().list(&ListParams::default()).await? {
        let runtime = runtime_of(node)?;
        ensure!(
            knows_cdi(&runtime),
            "{runtime} does not give containers devices of CDI: run this test with `--kubernetes 1.36`"
        );
    }
    Ok(())
}

/// The container runtime of a node, as in `containerd://1.6.20`.
pub(crate) fn runtime_of(node: Node) -> Result<String> {
    let info = node.status.and_then(|status| status.node_info);
    Ok(info
        .context("a node without information")?
        .container_runtime_version)
}

/// Whether it gives containers devices of CDI.
pub(crate) fn knows_cdi(runtime: &str) -> bool {
    !runtime.starts_with("containerd://1.")
}

async fn create(ns: &Namespace) -> Result<()> {
    let paths = [DRIVER, SPECIFICATIONS, PLUGINS, REGISTRY, CLAIMS];
    let names = ["driver", "specifications", "plugins", "registry", "claims"];
    let each = || names.iter().zip(paths);
    let volumes = each()
        .map(|(name, path)| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}));
    let mounts = each().map(|(name, path)| json!({"name": name, "mountPath": path}));
    let mounts = mounts.collect::<Vec<_>>();
    let container = |name: &str, arguments: &[&str]| {
        json!({
            "name": name, "image": IMAGE, "args": arguments, "volumeMounts": mounts,
            // A developer may have changed the program since the node pulled the image.
            "imagePullPolicy": "Always",
            "securityContext": {"privileged": true},
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        })
    };
    ns.create_json::<Pod>(json!({
        "metadata": {"name": VENDOR},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": volumes.collect::<Vec<_>>(),
            "containers": [
                container("main", &["plugin", PLUGINS]),
                container("claims", &["claims", REGISTRY, CLAIMS, "$(NODE)"]),
            ],
        },
    }))
    .await?;
    Ok(())
}

// === impl Vendor ===

impl Vendor<'_> {
    /// What pods name: the class of the runtime, and of claims the class, the template and the
    /// device.
    fn objects(&self) -> Value {
        let claims = "resource.k8s.io/v1";
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": {"name": LEGACY}, "handler": LEGACY,
            },
            {
                "apiVersion": claims, "kind": "DeviceClass", "metadata": {"name": "fake-gpu"},
                "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.fake.example.com'"}}]},
            },
            {
                "apiVersion": claims, "kind": "ResourceSlice", "metadata": {"name": "fake-gpu"},
                "spec": {
                    "driver": "gpu.fake.example.com", "nodeName": self.node, "devices": [{"name": "gpu-0"}],
                    "pool": {"name": self.node, "generation": 1, "resourceSliceCount": 1},
                },
            },
            {
                "apiVersion": claims, "kind": "ResourceClaimTemplate", "metadata": {"name": CLAIM_TEMPLATE},
                "spec": {"spec": {"devices": {
                    "requests": [{"name": "gpu", "exactly": {"deviceClassName": "fake-gpu"}}],
                }}},
            },
        ]})
    }

    /// Replaces the driver, as an upgrade of the node does.
    pub(crate) async fn install(&self, version: &str) -> Result<()> {
        let command = ["/fake-gpu", "install", DRIVER, SPECIFICATIONS, version];
        let output = self.ns.exec(VENDOR, "main", &command).await?;
        ensure!(output.code == 0, "installing the driver {version}: {output:?}");
        Ok(())
    }

    /// Removes the pod and everything that it put on its node. The resources stay with the number
    /// zero: the kubelet does so on purpose (`MachineInfo` in its `pkg/kubelet/nodestatus`).
    async fn remove(&self) -> Result<()> {
        // A pod with a claim does not end without the driver of claims.
        forget(self.ns, variants::CLAIM).await?;
        let objects = [
            "runtimeclass/legacy-gpu",
            "deviceclass/fake-gpu",
            "resourceslice/fake-gpu",
        ];
        let delete = [&["delete", "--ignore-not-found"], &objects[..]].concat();
        self.ns.kubectl(&delete).await?.success()?;
        self.ns.delete::<Pod>(VENDOR).await?;
        let shell = NodeShell::on(self.ns, &self.node).await?;
        let script = format!(
            "rm -rf {DRIVER} {CLAIMS} {SPECIFICATIONS}/fake-gpu.json {PLUGINS}/fake-*.sock {REGISTRY}/gpu.fake.*
             rmdir {SPECIFICATIONS} 2>/dev/null || ls {SPECIFICATIONS}"
        );
        shell.sh(&script).await?;
        for (resource, _) in OFFERED {
            devices_are(self.ns, &self.node, resource, 0).await?;
        }
        shell.close().await
    }
}
