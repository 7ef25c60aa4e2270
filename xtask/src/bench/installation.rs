//! The product on the control plane of the benchmark: the generated manifests without the
//! workloads, and the identity of the operator, which runs outside of the cluster.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::dir::ClusterDir;
use crate::progress::Step;
use crate::tools::Tools;
use crate::workspace::Workspace;

const NAMESPACE: &str = "stoppablecontainer-system";
const ACCOUNT: &str = "stoppablecontainer-controller";
const SERVICE: &str = "stoppablecontainer-webhook";
/// Manifests of a Helm release of the chart.
const MANIFESTS: [&str; 4] = [
    "config/crd",
    "config/rbac",
    "config/manager/csidriver.yaml",
    "config/manager/flowschema.yaml",
];

/// Installs the product, without its Deployment and its DaemonSet. The API server finds the webhook
/// at a port of this machine.
pub(super) fn apply(
    workspace: &Workspace,
    step: &Step<'_>,
    tools: &Tools,
    dir: &ClusterDir,
    webhook: u16,
) -> Result<()> {
    let service = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": SERVICE, "namespace": NAMESPACE },
            "spec": { "type": "ExternalName", "externalName": "localhost" },
        },
    ]);
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": service });
    let service = dir.write("service.json", list.to_string().as_bytes(), 0o600)?;
    step.run(kubectl(tools, dir).args(["apply", "-f"]).arg(service))?;
    let mut command = kubectl(tools, dir);
    command.current_dir(workspace.root()).arg("apply");
    step.run(command.args(MANIFESTS.iter().flat_map(|path| ["-f", path])))?;
    let webhooks = dir.make("webhook", 0o700)?;
    let source = workspace.join("config/webhook");
    for entry in fs::read_dir(&source).with_context(|| format!("reading {}", source.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = text.replace("port: 443", &format!("port: {webhook}"));
        let copy = webhooks.join(path.file_name().unwrap_or_default());
        fs::write(&copy, text).with_context(|| format!("writing {}", copy.display()))?;
    }
    step.run(kubectl(tools, dir).args(["apply", "-f"]).arg(webhooks))?;
    write_kubeconfig(step, tools, dir)
}

/// Kubeconfig of the operator's service account.
pub(super) fn operator_kubeconfig(dir: &ClusterDir) -> PathBuf {
    dir.join("kubeconfig/operator.conf")
}

/// The operator's arguments.
pub(super) fn operator_arguments(webhook: u16, admin: &str) -> Vec<String> {
    let webhook = format!("127.0.0.1:{webhook}");
    let arguments = [
        ("webhook-address", webhook.as_str()),
        ("admin-address", admin),
        ("wrapper-image", "registry.example.org/exec-wrapper:1"),
        ("namespace", NAMESPACE),
        ("pod-name", "bench"),
        ("service-account", ACCOUNT),
        ("excluded-namespace", NAMESPACE),
        (
            "keep-node-annotation",
            "cluster-autoscaler.kubernetes.io/safe-to-evict=false",
        ),
        ("drain-seconds", "1"),
        ("log", "warn"),
    ];
    arguments
        .map(|(flag, value)| format!("--{flag}={value}"))
        .to_vec()
}

fn write_kubeconfig(step: &Step<'_>, tools: &Tools, dir: &ClusterDir) -> Result<()> {
    let mut command = kubectl(tools, dir);
    command.args([
        "create",
        "token",
        ACCOUNT,
        "--duration=12h",
        "--namespace",
        NAMESPACE,
    ]);
    let token = step.output(&mut command)?;
    ensure!(!token.trim().is_empty(), "no token of the operator");
    let path = dir.admin_kubeconfig();
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut config: Value = serde_json::from_slice(&bytes).context("the administrator's kubeconfig")?;
    config["users"][0]["user"] = json!({ "token": token.trim() });
    dir.write("kubeconfig/operator.conf", config.to_string().as_bytes(), 0o600)?;
    Ok(())
}

fn kubectl(tools: &Tools, dir: &ClusterDir) -> Command {
    let mut command = tools.kube("kubectl");
    command.arg("--kubeconfig").arg(dir.admin_kubeconfig());
    command
}
