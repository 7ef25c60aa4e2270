/*!
What must be true before anything is made: each failure is one message that says what to do.
*/

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::context::Cluster;
use super::network::{self, PORTS};
use super::node::Node;
use super::process::Daemon;
use crate::shell;
use crate::tools;

/// What a build of Kubernetes, the images and a running cluster take, in GiB.
const DISK_TO_BUILD: u64 = 8;
/// What a cluster whose programs are built takes.
const DISK_TO_RUN: u64 = 2;

/// Refuses to go on as another user.
pub(super) fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this needs root: the cluster mounts file systems and makes network interfaces. Run it as root, for example with `sudo -E`"
        );
    }
    Ok(())
}

/// Checks the machine for `cluster up` with these nodes.
pub(super) fn check(cluster: &Cluster<'_>, nodes: &[Node]) -> Result<()> {
    require_root()?;
    cluster.dir.require_own_or_dead(cluster.workspace)?;
    for program in ["unshare", "setsid", "tar"] {
        if shell::which(program).is_none() {
            bail!("{program} is missing: install the package util-linux or tar");
        }
    }
    let built = cluster.tools.kube_program().is_file();
    if !built {
        tools::go_version()?;
    }
    let needed = if built { DISK_TO_RUN } else { DISK_TO_BUILD };
    require_space(cluster.workspace.root(), needed)?;
    require_space(Path::new("/var/lib"), needed)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    if !mounts.contains(" /sys/fs/cgroup") {
        bail!("no control groups are mounted below /sys/fs/cgroup: the kubelet and runc need them");
    }
    require_ports(cluster, nodes)?;
    if cluster.dir.owner()?.is_none() && network::has_service_rules() {
        bail!(
            "an nft table `ip kube-proxy` exists and is not this cluster's: another Kubernetes runs on this machine. If it is a \
             left-over, remove it with `nft delete table ip kube-proxy; nft delete table ip6 kube-proxy`"
        );
    }
    Ok(())
}

/// A part that runs holds its ports itself.
fn require_ports(cluster: &Cluster<'_>, nodes: &[Node]) -> Result<()> {
    let runs = |name: &str| Daemon::new(&cluster.dir, name).pid().is_some();
    let holder = |part: &str| match part {
        "etcd" => "etcd",
        "the API server" => "kube-apiserver",
        "the controller manager" => "kube-controller-manager",
        "the scheduler" => "kube-scheduler",
        "kube-proxy" => "kube-proxy",
        _ => super::registry::PROCESS,
    };
    network::require_free_ports(PORTS.iter().filter(|(_, part)| !runs(holder(part))))?;
    // The ports of a virtual machine are its own.
    for node in nodes
        .iter()
        .filter(|node| !node.is_machine() && !runs(&node.name))
    {
        network::require_free_ports(&[
            (node.kubelet_port(), "the kubelet"),
            (node.kubelet_health_port(), "the kubelet"),
        ])?;
    }
    Ok(())
}

fn require_space(path: &Path, gigabytes: u64) -> Result<()> {
    let stat =
        rustix::fs::statvfs(path).with_context(|| format!("asking for free space in {}", path.display()))?;
    let free = stat.f_bavail * stat.f_frsize / (1 << 30);
    if free < gigabytes {
        bail!(
            "{} has {free} GiB of free space, the cluster needs {gigabytes} GiB: free some first",
            path.display()
        );
    }
    Ok(())
}
