/*!
What a node is called: its name is in every path, address, interface and control group, so that a
second one is only another name. The name also says what kind of node it is. How a node is made and
started is in `node_life`.
*/

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::dir::ClusterDir;
use crate::tools::{Lsm, Runtime};

/// The node that every cluster has.
pub(super) const FIRST: &str = "node1";
/// Directory of its kept filesystems.
pub(super) const DATA: &str = "data";
/// What a node keeps: directory below its own, and the standard place where the node sees it.
const KEPT: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("cni-state", "/var/lib/cni"),
    (DATA, "/var/lib/stoppablecontainer"),
    // Where local volumes are by convention: what pods leave there goes with the cluster.
    ("disks", "/mnt/disks"),
    ("log-pods", "/var/log/pods"),
    ("log-containers", "/var/log/containers"),
];

/// What a node with CRI-O keeps too.
const KEPT_BY_CRI_O: (&str, &str) = ("containers", "/var/lib/containers");

/// What a node mounts when it starts, in the format of fstab(5), as the node sees it: the machine
/// has its own.
pub(crate) const FSTAB: &str = "/mnt/disks/fstab";
/// Where a disk for kept filesystems may be mounted on a node.
pub(crate) const DISK: &str = "/mnt/disks/stoppablecontainer";

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A process with namespaces of its own: `node1`.
    Process,
    /// A virtual machine with a kernel of its own, which has this security module: `vm2` or
    /// `selinux2`.
    Machine(Lsm),
}

/// A node of the cluster, there or not.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// 1 for the first: the third byte of its pods' addresses, and what sets its ports apart.
    pub index: u8,
    /// What it is.
    pub kind: Kind,
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 3] = [
        Self::Process,
        Self::Machine(Lsm::AppArmor),
        Self::Machine(Lsm::SeLinux),
    ];

    /// How the names of such nodes begin. An interface's name has no room for more.
    fn prefix(self) -> &'static str {
        match self {
            Self::Process => "node",
            Self::Machine(Lsm::AppArmor) => "vm",
            Self::Machine(Lsm::SeLinux) => "selinux",
        }
    }
}

/// What a node with this container runtime keeps: directory below its own, and the place where the
/// node sees it.
pub(super) fn kept(runtime: Runtime) -> impl Iterator<Item = (&'static str, &'static str)> {
    let more = (runtime == Runtime::CriO).then_some(KEPT_BY_CRI_O);
    KEPT.iter().copied().chain(more)
}

// === impl Node ===

impl Node {
    /// The node with a name of the form `nodeN`, `vmN` or `selinuxN`.
    ///
    /// # Errors
    /// For any other name, and for N outside 1 to 99.
    pub(super) fn named(name: &str) -> Result<Self> {
        let of_kind = |kind: Kind| {
            let index = name.strip_prefix(kind.prefix())?.parse().ok()?;
            let node = Self::numbered(kind, index);
            ((1..=99).contains(&index) && node.name == name).then_some(node)
        };
        Kind::ALL.into_iter().find_map(of_kind).with_context(|| {
            format!("{name} is not a node's name: they are node1, node2 and so on, and vm2 or selinux2 for virtual machines")
        })
    }

    /// The node with a number from 1 to 99.
    pub(super) fn numbered(kind: Kind, index: u8) -> Self {
        Self {
            name: format!("{}{index}", kind.prefix()),
            index,
            kind,
        }
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

    /// The zone that it stands in, one of three.
    pub(super) fn zone(&self) -> &'static str {
        ["zone-a", "zone-b", "zone-c"][usize::from((self.index - 1) % 3)]
    }

    /// Whether it is a virtual machine.
    pub(super) fn is_machine(&self) -> bool {
        matches!(self.kind, Kind::Machine(_))
    }

    /// Its bridge in the machine's network namespace, or its virtual machine's cable there.
    pub(super) fn bridge(&self) -> String {
        format!("stopc-{}", self.name)
    }

    /// Its address, which is that of its bridge. The bridge of a virtual machine is inside.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_node_and_a_number() {
        assert_eq!(Node::named("node2").unwrap().pod_network(), "10.244.2.0/24");
        for name in [
            "node", "node0", "node01", "node100", "worker1", "../node1", "vm", "vm100",
        ] {
            assert!(Node::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_name_says_what_a_node_is() {
        for (name, kind) in [
            ("node2", Kind::Process),
            ("vm2", Kind::Machine(Lsm::AppArmor)),
            ("selinux99", Kind::Machine(Lsm::SeLinux)),
        ] {
            let node = Node::named(name).unwrap();
            assert_eq!(node.kind, kind);
            assert!(node.bridge().len() < 16, "an interface's name has 15 characters");
        }
    }
}
