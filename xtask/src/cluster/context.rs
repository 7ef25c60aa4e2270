/*!
What every command on the local cluster works with: the clone, its programs, and the cluster's
directory.
*/

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::dir::ClusterDir;
use super::node::Node;
use crate::progress::{Progress, Step};
use crate::tools::{Release, Runtime, Tools};
use crate::workspace::Workspace;

/// Builds an image and puts it into the cluster's registry, unless it is there.
pub(crate) type ProvideImage = fn(&Workspace, &Step<'_>) -> Result<()>;

/// The local cluster as seen from one clone.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) progress: &'a Progress,
    /// Provides [`super::PAUSE_IMAGE`]. Images are built by a room above this one.
    pub(super) provide_pause: ProvideImage,
    pub(super) tools: Tools,
    pub(super) dir: ClusterDir,
}

// === impl Cluster ===

impl<'a> Cluster<'a> {
    /// The machine's cluster, up or not, of the release that it is.
    pub(crate) fn new(workspace: &'a Workspace, progress: &'a Progress, provide_pause: ProvideImage) -> Self {
        let dir = ClusterDir::machine();
        let owner = dir.owner().ok().flatten().unwrap_or_default();
        Self {
            workspace,
            progress,
            provide_pause,
            tools: Tools::of(workspace)
                .with_release(owner.release)
                .with_runtime(owner.runtime),
            dir,
        }
    }

    /// The same of another release, if one is given. [`Cluster::up`] replaces a cluster that is of
    /// another.
    pub(crate) fn with_release(self, release: Option<Release>) -> Self {
        let release = release.unwrap_or(self.tools.release());
        Self {
            tools: self.tools.with_release(release),
            ..self
        }
    }

    /// The same with another container runtime, if one is given. [`Cluster::up`] replaces a cluster
    /// that has another.
    pub(crate) fn with_runtime(self, runtime: Option<Runtime>) -> Self {
        let runtime = runtime.unwrap_or(self.tools.runtime());
        Self {
            tools: self.tools.with_runtime(runtime),
            ..self
        }
    }

    /// The programs of its release.
    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The administrator's kubeconfig; there while the cluster is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.admin_kubeconfig()
    }

    /// As [`Cluster::kubeconfig`], for the command of that name.
    ///
    /// # Errors
    /// When the cluster does not exist.
    pub(crate) fn existing_kubeconfig(&self) -> Result<PathBuf> {
        let path = self.kubeconfig();
        if !path.is_file() {
            bail!("there is no local cluster: `cargo xtask cluster up` makes one");
        }
        Ok(path)
    }

    /// Whether the cluster does not exist, or is this clone's.
    pub(crate) fn is_own(&self) -> Result<bool> {
        let owner = self.dir.owner()?;
        Ok(owner.is_none_or(|owner| owner.clone == self.workspace.root()))
    }

    /// kubectl, as the cluster's administrator.
    pub(super) fn kubectl(&self) -> Command {
        let mut command = self.tools.kube("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// A node that the cluster has.
    pub(super) fn existing_node(&self, name: &str) -> Result<Node> {
        let node = Node::named(name)?;
        if !node.dir(&self.dir).is_dir() {
            bail!("the cluster has no node {name}");
        }
        Ok(node)
    }
}
