/*!
`install`: installs the chart with the images of this clone, with helm.
*/

use anyhow::Result;

use crate::cluster::DISK;
use crate::images::product;
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Name of the release.
pub(crate) const RELEASE: &str = "stoppablecontainer";
/// Namespace of the release.
pub(crate) const NAMESPACE: &str = "stoppablecontainer-system";
/// Number of steps of [`run`].
pub(crate) const STEPS: usize = 2;
/// Default directory of kept filesystems.
const KEPT: &str = "/var/lib/stoppablecontainer";

/// How to install, apart from the chart's own values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// The only node that gets an agent; all get one otherwise.
    pub agent_on: Option<&'a str>,
    /// Time limit for the product's pods to become ready, in seconds.
    pub patience: u32,
}

// === impl Options ===

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            agent_on: None,
            patience: 180,
        }
    }
}

/// `install`: builds the images and installs the chart, on the cluster of KUBECONFIG or the local
/// one.
pub(crate) fn command(workspace: &Workspace, progress: &Progress, registry: Option<&str>) -> Result<()> {
    let target = Target::choose(workspace, progress, registry, None, None)?;
    progress.expect(product::STEPS + STEPS);
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    run(workspace, progress, &target, &tag, &Options::default())
}

/// Installs or upgrades the chart, and waits until the product serves.
pub(crate) fn run(
    workspace: &Workspace,
    progress: &Progress,
    target: &Target<'_>,
    tag: &str,
    options: &Options<'_>,
) -> Result<()> {
    let patience = format!("{}s", options.patience);
    let tools = Tools::of(workspace);
    tools.prepare_helm(progress)?;
    progress.step("Install the chart with helm", |step| {
        let mut command = tools.helm();
        command.env("KUBECONFIG", &target.kubeconfig);
        command
            .args(["upgrade", "--install", RELEASE])
            .arg(workspace.join("charts/stoppablecontainer"));
        command.args([
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            &patience,
        ]);
        command.arg("--set-string").arg(format!("image.tag={tag}"));
        if let Some(registry) = target.destination.chart_registry() {
            command
                .arg("--set-string")
                .arg(format!("imageRegistry={registry},imageNamespace="));
        }
        if let Some(node) = options.agent_on {
            command
                .arg("--set")
                .arg(format!("agent.nodeSelector.kubernetes\\.io/hostname={node}"));
        }
        if target.local {
            // For tests that fill a disk, break it or cut its power. They mount their own disks
            // there.
            command
                .arg("--set")
                .arg(format!("allowedHostPathPrefixes={{{KEPT},{DISK}}}"));
        }
        // Helm considers a DaemonSet ready although its only pod is not.
        let mut rollout = target.kubectl();
        rollout.args(["-n", NAMESPACE, "rollout", "status", "deployments,daemonsets"]);
        rollout.args([
            "-l",
            &format!("app.kubernetes.io/instance={RELEASE}"),
            &format!("--timeout={patience}"),
        ]);
        step.run(&mut command)
            .and_then(|()| step.run(&mut rollout))
            .inspect_err(|_| explain(target, step))
    })
}

/// Prints why the release's pods are not ready, because helm does not report the reason.
fn explain(target: &Target<'_>, step: &Step<'_>) {
    let queries: [&[&str]; 3] = [
        &["-n", NAMESPACE, "get", "pods", "-o", "wide"],
        &["-n", NAMESPACE, "get", "events", "--field-selector=type=Warning"],
        &[
            "-n",
            NAMESPACE,
            "logs",
            "--all-pods=true",
            "--all-containers",
            "--tail=20",
            "--prefix",
            "-l",
            "app.kubernetes.io/name=stoppablecontainer",
        ],
    ];
    for query in queries {
        let text = target
            .kubectl_output(query)
            .unwrap_or_else(|error| format!("{error:#}"));
        step.say(format!("--- kubectl {}\n{}", query.join(" "), text.trim_end()));
    }
}
