/*!
A node: one process with PID and mount namespaces of its own, with containerd and a kubelet in it. Its name is in every
path, interface and control group, so that a second one is only another name.
*/

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::dir::{ClusterDir, Owner};
use super::pki::Pki;
use super::process::{Daemon, kill_first_child};
use super::{cgroups, network, node_config};
use crate::tools::Tools;

/// The node that `cluster up` makes.
pub(super) const FIRST: &str = "node1";
/// What a node keeps: directory below its own, and the standard place where the node sees it.
pub(super) const KEPT: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("cni-state", "/var/lib/cni"),
    ("data", "/var/lib/stoppablecontainer"),
    // Where local volumes are by convention: what pods leave there goes with the cluster.
    ("disks", "/mnt/disks"),
    ("log-pods", "/var/log/pods"),
    ("log-containers", "/var/log/containers"),
];

/// What a node mounts when it starts, in the format of fstab(5), as the node sees it: the machine has its own.
pub(crate) const FSTAB: &str = "/mnt/disks/fstab";
/// Where a disk for kept filesystems may be mounted on a node.
pub(crate) const DISK: &str = "/mnt/disks/stoppablecontainer";

/// A node of the cluster, there or not.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// 1 for the first: the third byte of its pods' addresses, and what sets its ports apart.
    pub index: u8,
}

// === impl Node ===

impl Node {
    /// The node with a name of the form `nodeN`.
    ///
    /// # Errors
    /// For any other name, and for N outside 1 to 99.
    pub(super) fn named(name: &str) -> Result<Self> {
        let index = name.strip_prefix("node").and_then(|digits| digits.parse().ok());
        let index = index.filter(|index| (1..=99).contains(index) && name == format!("node{index}"));
        let index =
            index.with_context(|| format!("{name} is not a node's name: they are node1, node2 and so on"))?;
        Ok(Self {
            name: name.to_owned(),
            index,
        })
    }

    /// The nodes that the directory holds.
    pub(super) fn all(dir: &ClusterDir) -> Result<Vec<Self>> {
        let nodes = dir.join("nodes");
        if !nodes.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&nodes).with_context(|| format!("reading {}", nodes.display()))?;
        let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
        let mut found: Vec<_> = names
            .filter_map(|name| Self::named(&name.to_string_lossy()).ok())
            .collect();
        found.sort_by_key(|node| node.index);
        Ok(found)
    }

    /// Its bridge in the machine's network namespace.
    pub(super) fn bridge(&self) -> String {
        format!("stopc-{}", self.name)
    }

    /// Its address, which is its bridge's.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.index, 1)
    }

    /// Addresses of its pods.
    pub(super) fn pod_network(&self) -> String {
        format!("10.244.{}.0/24", self.index)
    }

    /// Port of its kubelet.
    pub(super) fn kubelet_port(&self) -> u16 {
        10250 + (u16::from(self.index) - 1) * 100
    }

    /// Port of its kubelet's health check.
    pub(super) fn kubelet_health_port(&self) -> u16 {
        10248 + (u16::from(self.index) - 1) * 100
    }

    /// Its directory in the cluster's.
    pub(super) fn dir(&self, dir: &ClusterDir) -> PathBuf {
        dir.join("nodes").join(&self.name)
    }

    /// The process that is the node.
    pub(super) fn daemon(&self, dir: &ClusterDir) -> Daemon {
        Daemon::new(dir, &self.name)
    }

    /// Makes its directories, configuration and bridge, and the mount points that the machine lacks;
    /// those are added to the owner's record, which the caller must have stored before anything else is done.
    pub(super) fn prepare(&self, dir: &ClusterDir, owner: &mut Owner) -> Result<()> {
        for (own, place) in KEPT {
            dir.make(Path::new("nodes").join(&self.name).join(own), 0o755)?;
            make_mount_point(dir, owner, Path::new(place))?;
        }
        Pki::new(dir).prepare_node(self)?;
        node_config::write(self, dir)?;
        network::prepare_node(self)
    }

    /// Starts it unless it runs. Its `/run` is empty, everything else is as it was left.
    pub(super) fn start(&self, dir: &ClusterDir, tools: &Tools) -> Result<()> {
        if self.daemon(dir).pid().is_some() {
            return Ok(());
        }
        // What a crash of the machine's processes left.
        cgroups::clean_node(self)?;
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
        self.daemon(dir)
            .start(&command, &cgroups::system_of(self), &tools.path())
    }

    /// Cuts its power: every process in it dies at once.
    pub(super) fn cut_power(&self, dir: &ClusterDir) -> Result<()> {
        let daemon = self.daemon(dir);
        if let Some(pid) = daemon.pid() {
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

/// Makes a directory and its missing parents outside the cluster's own, each recorded before it is made.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_node_and_a_number() {
        assert_eq!(Node::named("node2").unwrap().pod_network(), "10.244.2.0/24");
        for name in ["node", "node0", "node01", "node100", "worker1", "../node1"] {
            assert!(Node::named(name).is_err(), "{name}");
        }
    }
}
