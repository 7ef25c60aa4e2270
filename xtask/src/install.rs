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
/// Time limit for the product's pods to become ready.
const PATIENCE: &str = "180s";

/// `install`: builds the images and installs the chart, on the cluster of KUBECONFIG or the local
/// one.
pub(crate) fn command(workspace: &Workspace, progress: &Progress, registry: Option<&str>) -> Result<()> {
    let target = Target::choose(workspace, progress, registry, None, None)?;
    progress.expect(product::STEPS + STEPS);
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    run(workspace, progress, &target, &tag)
}

/// Installs or upgrades the chart, and waits until the product serves.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, target: &Target<'_>, tag: &str) -> Result<()> {
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
            PATIENCE,
        ]);
        command.arg("--set-string").arg(format!("image.tag={tag}"));
        if let Some(registry) = target.destination.chart_registry() {
            command
                .arg("--set-string")
                .arg(format!("image.registry={registry}"));
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
            &format!("--timeout={PATIENCE}"),
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
