/*!
Nodes that come and go while the cluster runs: `cluster add`, `cluster remove` and `cluster drain`.
*/

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::context::Cluster;
use super::node::{DATA, FIRST, Kind, Node};
use super::{preflight, up};
use crate::tools::Runtime;

/// Prepares a node and starts it.
pub(super) fn add(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    let node = Node::named(name)?;
    let nodes = Node::all(&cluster.dir)?;
    if let Some(other) = nodes
        .iter()
        .find(|other| other.index == node.index && other.name != name)
    {
        bail!(
            "{} has the addresses of {name}: choose another number",
            other.name
        );
    }
    preflight::check(cluster, std::slice::from_ref(&node))?;
    let mut owner = cluster
        .dir
        .owner()?
        .context("the cluster's directory does not name its owner")?;
    if node.is_machine() && cluster.tools.runtime() != Runtime::Containerd {
        bail!("{name} would have containerd, and the cluster has another container runtime");
    }
    if let Kind::Machine(lsm) = node.kind {
        cluster.progress.expect(2);
        cluster.tools.prepare_machine(cluster.progress, lsm)?;
    }
    cluster.progress.expect(1);
    cluster.progress.step(&format!("Add {name}"), |step| {
        node.prepare(&cluster.dir, &cluster.tools, &mut owner)?;
        up::start_nodes(cluster, &[node], step)
    })
}

/// Takes a node away with its disk, as a provider of machines does.
///
/// # Errors
/// For the first node: kube-proxy runs under its name.
pub(super) fn remove(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    let node = cluster.existing_node(name)?;
    if name == FIRST {
        bail!("{name} stays as long as the cluster: `cargo xtask cluster down` removes both");
    }
    cluster.progress.expect(1);
    cluster.progress.step(&format!("Remove {name}"), |step| {
        node.cut_power(&cluster.dir)?;
        let delete = ["delete", "node", "--ignore-not-found", name];
        step.run(cluster.kubectl().args(delete))?;
        node.clean()?;
        let disk = node.dir(&cluster.dir);
        fs::remove_dir_all(&disk).with_context(|| format!("removing {}", disk.display()))
    })
}

/// Takes a node away and adds `by` with the disk of its kept filesystems. Both may have the same
/// name.
///
/// # Errors
/// As [`remove`], and if the cluster has a node with the new name already.
pub(super) fn replace(cluster: &Cluster<'_>, name: &str, by: &str) -> Result<()> {
    let (old, new) = (cluster.existing_node(name)?, Node::named(by)?);
    if name != by && new.dir(&cluster.dir).exists() {
        bail!("the cluster has a node {by}: give the new machine another name");
    }
    if old.is_machine() || new.is_machine() {
        bail!("the disk of kept filesystems of a virtual machine is not a directory, so it cannot be moved");
    }
    let disk = cluster.dir.join(format!("disk-of-{name}"));
    old.cut_power(&cluster.dir)?;
    relocate(&old.dir(&cluster.dir).join(DATA), &disk)?;
    remove(cluster, name)?;
    // The disk is there before the machine starts.
    fs::create_dir_all(new.dir(&cluster.dir)).with_context(|| format!("making the directory of {by}"))?;
    relocate(&disk, &new.dir(&cluster.dir).join(DATA))?;
    add(cluster, by)
}

fn relocate(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

/// Removes all nodes but the first.
pub(super) fn keep_first(cluster: &Cluster<'_>) -> Result<()> {
    let nodes = Node::all(&cluster.dir)?;
    for node in nodes.iter().filter(|node| node.name != FIRST) {
        remove(cluster, &node.name)?;
    }
    Ok(())
}

/// Evicts what an administrator would, without force.
pub(super) fn drain(cluster: &Cluster<'_>, name: &str, timeout: u32) -> Result<()> {
    cluster.existing_node(name)?;
    cluster.progress.expect(1);
    cluster.progress.step(&format!("Drain {name}"), |step| {
        let timeout = format!("--timeout={timeout}s");
        let drain = [
            "drain",
            name,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            &timeout,
        ];
        step.run(cluster.kubectl().args(drain))
    })
}
