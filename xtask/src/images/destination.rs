/*!
How images get to where a cluster finds them. Clusters that run in containers or virtual machines on this machine have
commands of their own; all others pull from a registry.
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

/// Where images go.
#[derive(Clone, Debug)]
pub(crate) enum Destination<'a> {
    /// The registry of the local cluster.
    Embedded,
    /// A kind cluster, by its name.
    Kind(&'a Workspace, String),
    /// A k3d cluster, by its name.
    K3d(&'a Workspace, String),
    /// A minikube cluster, by its profile.
    Minikube(&'a Workspace, String),
    /// A registry, by its host and path: `registry.example.com/team`.
    Registry(String),
}

// === impl Destination ===

impl<'a> Destination<'a> {
    /// The destination that a kubeconfig's current context tells, if it is of a cluster that images can be loaded into.
    pub(crate) fn of_context(workspace: &'a Workspace, context: &str) -> Option<Self> {
        if let Some(name) = context.strip_prefix("kind-") {
            return Some(Self::Kind(workspace, name.to_owned()));
        }
        if let Some(name) = context.strip_prefix("k3d-") {
            return Some(Self::K3d(workspace, name.to_owned()));
        }
        (context == "minikube").then(|| Self::Minikube(workspace, context.to_owned()))
    }

    /// Makes an image of the clone's storage available. Skipped when this very content was delivered before.
    ///
    /// # Errors
    /// When a copy fails; the log has the tool's words.
    pub(crate) fn deliver(
        &self,
        buildah: &Buildah,
        name: &str,
        fingerprint: &str,
        step: &Step<'_>,
    ) -> Result<()> {
        let (workspace, load): (&Workspace, Vec<String>) = match self {
            Self::Embedded => {
                // Kept in the cluster's directory: the registry's content goes with it.
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
                // A registry on this machine speaks plain HTTP, as Docker takes for granted too.
                let local = host.starts_with("localhost") || host.starts_with("127.");
                let options: &[&str] = if local { &["--dest-tls-verify=false"] } else { &[] };
                return buildah.copy(name, &target, options, step);
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
                "KUBECONFIG's context is of a {0} cluster, but there is no `{0}` to load images with: install it, or give --registry",
                load[0]
            );
        }
        let archive = export(workspace, buildah, name, step)?;
        let result = step.run(Command::new(&load[0]).args(&load[1..]).arg(&archive));
        fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
        result
    }

    /// Whether pods can name test images by their public names there, so that the test images must be delivered.
    pub(crate) fn takes_test_images(&self) -> bool {
        !matches!(self, Self::Registry(_))
    }

    /// The registry that the chart must name, where it is not the product's public one.
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

/// Writes an image as a Docker archive, which every loader reads.
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
