/*!
The local cluster: a real one-node Kubernetes on this machine, for the demo, the tests and for playing.

Everything it is lives below one directory ([`dir::ClusterDir`]); what must be outside (bridges, control groups, nft
tables, kernel settings, mount points) is made and removed here.
*/

mod cgroups;
mod control_plane;
pub(crate) mod dir;
mod down;
mod etcd_keys;
mod network;
mod node;
mod node_config;
mod node_init;
mod node_life;
mod ownership;
mod partition;
mod pki;
mod preflight;
mod process;
pub(crate) mod registry;
mod status;
mod up;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;
use dir::ClusterDir;
use node::Node;

pub(crate) use node::{DISK, FSTAB};
pub(crate) use node_config::PAUSE_IMAGE;

/// The local cluster as seen from one clone.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    workspace: &'a Workspace,
    progress: &'a Progress,
    tools: Tools,
    dir: ClusterDir,
}

// === impl Cluster ===

impl<'a> Cluster<'a> {
    /// The machine's cluster, up or not.
    pub(crate) fn new(workspace: &'a Workspace, progress: &'a Progress) -> Self {
        Self {
            workspace,
            progress,
            tools: Tools::of(workspace),
            dir: ClusterDir::machine(),
        }
    }

    /// The administrator's kubeconfig; there while the cluster is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.admin_kubeconfig()
    }

    /// As [`Cluster::kubeconfig`], for the command of that name.
    ///
    /// # Errors
    /// When there is no cluster.
    pub(crate) fn existing_kubeconfig(&self) -> Result<PathBuf> {
        let path = self.kubeconfig();
        if !path.is_file() {
            bail!("there is no local cluster: `cargo xtask cluster up` makes one");
        }
        Ok(path)
    }

    /// Whether there is none, or it is this clone's.
    pub(crate) fn is_own(&self) -> Result<bool> {
        let owner = self.dir.owner()?;
        Ok(owner.is_none_or(|owner| owner.clone == self.workspace.root()))
    }

    /// Brings it up: from nothing, from what a crash or a reboot left, or not at all when it is up.
    pub(crate) fn up(&self) -> Result<()> {
        up::run(self)
    }

    /// Stops its processes and removes everything that it made.
    pub(crate) fn down(&self) -> Result<()> {
        down::run(self)
    }

    /// Prints what runs. Returns whether all of it does.
    pub(crate) fn status(&self) -> Result<bool> {
        status::print(self)
    }

    /// Cuts a node's power, starts it again and waits until it is Ready.
    pub(crate) fn reboot(&self, name: &str) -> Result<()> {
        let _lock = self.lock_existing()?;
        let node = self.existing_node(name)?;
        self.progress.expect(2);
        self.progress
            .step(&format!("Cut the power of {name}"), |_| node.cut_power(&self.dir))?;
        self.progress
            .step(&format!("Start {name}"), |step| up::start_node(self, &node, step))
    }

    /// Cuts the power of the control plane and of all nodes, and starts everything again.
    pub(crate) fn restart(&self) -> Result<()> {
        let _lock = self.lock_existing()?;
        self.progress.expect(1 + up::STEPS);
        self.progress
            .step("Cut the power of the whole cluster", |_| down::stop(self))?;
        up::start_existing(self)
    }

    /// Cuts a node and the pods with these addresses off from the API server until standard input ends.
    pub(crate) fn partition(&self, name: &str, pods: &[Ipv4Addr]) -> Result<()> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.dir.require_own(self.workspace)?;
        partition::run(&self.existing_node(name)?, pods)
    }

    /// Key and last revision of everything that etcd holds: a line each, sorted by key.
    pub(crate) fn etcd_keys(&self) -> Result<String> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.progress.expect(1);
        self.tools.prepare_etcdctl(self.progress)?;
        etcd_keys::read(&self.dir, &self.tools)
    }

    /// Puts the images of an OCI or Docker archive into the cluster's registry.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.progress.expect(2);
        Tools::prepare_images(self.progress)?;
        let load = |step: &crate::progress::Step<'_>| registry::load(archive, step);
        for name in self.progress.step(&format!("Load {}", archive.display()), load)? {
            self.progress.say(format!("{name} can be used by pods now"));
        }
        Ok(())
    }

    /// Runs the first process of a node. For `cluster up` alone.
    pub(crate) fn node_init(&self, name: &str) -> Result<()> {
        node_init::run(name, &self.dir, &self.tools)
    }

    /// kubectl, as the cluster's administrator.
    fn kubectl(&self) -> Command {
        let mut command = self.tools.kube("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    fn existing_node(&self, name: &str) -> Result<Node> {
        let node = Node::named(name)?;
        if !node.dir(&self.dir).is_dir() {
            bail!("the cluster has no node {name}");
        }
        Ok(node)
    }

    fn lock_existing(&self) -> Result<dir::Lock> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.dir.require_own(self.workspace)?;
        self.dir.lock()
    }
}
