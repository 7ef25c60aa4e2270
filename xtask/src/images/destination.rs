/*!
Delivery of images to a cluster. Clusters that run in containers or virtual machines on this machine
have their own load commands. All others pull from a registry.
*/

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::buildah::Buildah;
use crate::cluster::dir::ClusterDir;
use crate::cluster::registry;
use crate::progress::Step;
use crate::shell;
use crate::tools::Stamp;
use crate::workspace::Workspace;

/// Destination of images.
#[derive(Clone, Debug)]
pub(crate) enum Destination<'a> {
    /// The registry of the local cluster.
    Embedded,
    /// A kind cluster with this name.
    Kind(&'a Workspace, String),
    /// A k3d cluster with this name.
    K3d(&'a Workspace, String),
    /// A minikube cluster with this profile.
    Minikube(&'a Workspace, String),
    /// A registry, as host and path: `registry.example.com/team`.
    Registry(String),
}

// === impl Destination ===

impl<'a> Destination<'a> {
    /// The destination for a kubeconfig's current context, if images can be loaded into that
    /// cluster.
    pub(crate) fn of_context(workspace: &'a Workspace, context: &str) -> Option<Self> {
        if let Some(name) = context.strip_prefix("kind-") {
            return Some(Self::Kind(workspace, name.to_owned()));
        }
        if let Some(name) = context.strip_prefix("k3d-") {
            return Some(Self::K3d(workspace, name.to_owned()));
        }
        (context == "minikube").then(|| Self::Minikube(workspace, context.to_owned()))
    }

    /// Delivers an image from the clone's storage. Does nothing if this content was delivered
    /// before.
    ///
    /// # Errors
    /// If a copy fails. The log has the tool's output.
    pub(crate) fn deliver(
        &self,
        buildah: &Buildah,
        name: &str,
        fingerprint: &str,
        step: &Step<'_>,
    ) -> Result<()> {
        let (workspace, load): (&Workspace, Vec<String>) = match self {
            Self::Embedded => {
                // In the cluster's directory, because it is removed together with the registry's
                // content.
                let file = ClusterDir::machine()
                    .join("delivered")
                    .join(registry::repository(name).replace(['/', ':'], "_"));
                let target = registry::target(name);
                return once(&Stamp::new(file), fingerprint, || {
                    buildah.copy(name, &target, &["--dest-tls-verify=false"], step)
                });
            }
            Self::Registry(host) => {
                let own = registry::repository(name);
                let short = own.rsplit('/').next().unwrap_or(&own);
                let target = format!("docker://{host}/{short}");
                // A registry on this machine uses plain HTTP. Docker makes the same assumption.
                let local = host.starts_with("localhost") || host.starts_with("127.");
                let options: &[&str] = if local { &["--tls-verify=false"] } else { &[] };
                return buildah.push_index(name, &target, options, step);
            }
            Self::Kind(workspace, cluster) => (
                workspace,
                words(&["kind", "load", "image-archive", "--name", cluster]),
            ),
            Self::K3d(workspace, cluster) => (
                workspace,
                words(&["k3d", "image", "import", "--cluster", cluster]),
            ),
            Self::Minikube(workspace, profile) => (
                workspace,
                words(&["minikube", "image", "load", "--profile", profile]),
            ),
        };
        if shell::which(&load[0]).is_none() {
            bail!(
                "KUBECONFIG's context is a {0} cluster, but the command `{0}` for loading images is not installed: install it, or set --registry",
                load[0]
            );
        }
        let archive = export(workspace, buildah, name, step)?;
        let result = step.run(Command::new(&load[0]).args(&load[1..]).arg(&archive));
        fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
        result
    }

    /// Whether pods can use test images by their public names, so that the test images must be
    /// delivered.
    pub(crate) fn takes_test_images(&self) -> bool {
        !matches!(self, Self::Registry(_))
    }

    /// The registry for the chart's values, if it is not the product's public one.
    pub(crate) fn chart_registry(&self) -> Option<&str> {
        match self {
            Self::Registry(host) => Some(host),
            _ => None,
        }
    }
}

fn once(stamp: &Stamp, fingerprint: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if stamp.is(fingerprint) {
        return Ok(());
    }
    work()?;
    stamp.set(fingerprint)
}

/// Writes an image as a Docker archive, which all loaders support.
fn export(workspace: &Workspace, buildah: &Buildah, name: &str, step: &Step<'_>) -> Result<PathBuf> {
    let archive = workspace
        .target()
        .join("images")
        .join(format!("{}.tar", name.replace(['/', ':'], "_")));
    if archive.exists() {
        fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    }
    if !buildah.has(name) {
        bail!("the image {name} is not built");
    }
    let target = format!("docker-archive:{}:{name}", archive.display());
    buildah.copy(name, &target, &[], step)?;
    Ok(archive)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
