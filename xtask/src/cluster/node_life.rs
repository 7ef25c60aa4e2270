/*!
The life of a node: one process with PID and mount namespaces of its own, with containerd and a
kubelet in it, or a virtual machine. It is prepared, started, cut from its power and removed here.
*/

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::dir::{ClusterDir, Owner};
use super::node::{Kind, Node, kept};
use super::pki::Pki;
use super::process::{Daemon, kill_first_child};
use super::{cgroups, machine, network, node_config};
use crate::tools::Tools;

// === impl Node ===

impl Node {
    /// The process that is the node.
    pub(super) fn daemon(&self, dir: &ClusterDir) -> Daemon {
        Daemon::new(dir, &self.name)
    }

    /// Makes its directories, configuration and bridge, and the mount points that the machine
    /// lacks; those are added to the owner's record, which the caller must have stored before
    /// anything else is done.
    pub(super) fn prepare(&self, dir: &ClusterDir, tools: &Tools, owner: &mut Owner) -> Result<()> {
        // A virtual machine has all on a disk of its own.
        for (own, place) in kept(tools.runtime()).filter(|_| !self.is_machine()) {
            dir.make(Path::new("nodes").join(&self.name).join(own), 0o755)?;
            make_mount_point(dir, owner, Path::new(place))?;
        }
        Pki::new(dir).prepare_node(self)?;
        node_config::write(self, dir, tools)?;
        network::prepare_node(self)
    }

    /// Starts it unless it runs. Its `/run` is empty, everything else is as it was left.
    pub(super) fn start(&self, dir: &ClusterDir, tools: &Tools) -> Result<()> {
        if self.daemon(dir).pid().is_some() {
            return Ok(());
        }
        // What a crash of the machine's processes left.
        cgroups::clean_node(self)?;
        let command = match self.kind {
            Kind::Process => self.init(dir)?,
            Kind::Machine(lsm) => machine::start(self, lsm, dir, tools)?,
        };
        self.daemon(dir)
            .start(&command, &cgroups::system_of(self), &tools.path())
    }

    /// The command that is a node without a kernel of its own.
    fn init(&self, dir: &ClusterDir) -> Result<Command> {
        let own = std::env::current_exe().context("finding this program")?;
        // A copy: the next build of this program must not pull the node's out from under it.
        let init = dir.make("bin", 0o755)?.join(format!("{}-init", self.name));
        let _ = fs::remove_file(&init);
        fs::copy(&own, &init).with_context(|| format!("copying {} to {}", own.display(), init.display()))?;
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "slave",
        ]);
        command.arg(&init).args(["cluster", "node-init", &self.name]);
        Ok(command)
    }

    /// Cuts its power: every process in it dies at once.
    pub(super) fn cut_power(&self, dir: &ClusterDir) -> Result<()> {
        let daemon = self.daemon(dir);
        if let Some(pid) = daemon.pid().filter(|_| !self.is_machine()) {
            // The recorded process is unshare(1); its only child is the node's init.
            kill_first_child(pid)?;
        }
        daemon.kill()?;
        cgroups::clean_node(self)
    }

    /// Removes what [`Node::prepare`] made outside the cluster's directory. The node must not run.
    pub(super) fn clean(&self) -> Result<()> {
        network::clean_node(self)
    }
}

/// Makes a directory and its missing parents outside the cluster's own, each recorded before it is
/// made.
fn make_mount_point(dir: &ClusterDir, owner: &mut Owner, place: &Path) -> Result<()> {
    let missing: Vec<_> = place
        .ancestors()
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect();
    for path in missing.into_iter().rev() {
        owner.mount_points.push(path.clone());
        dir.set_owner(owner)?;
        fs::create_dir(&path).with_context(|| format!("making the mount point {}", path.display()))?;
    }
    Ok(())
}
