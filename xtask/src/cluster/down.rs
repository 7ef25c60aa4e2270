/*!
`cluster down`: stops exactly the recorded processes and removes what the cluster made on the
machine.
*/

use std::fs;

use anyhow::{Context, Result};

use super::context::Cluster;
use super::dir::{ClusterDir, Owner};
use super::node::Node;
use super::process::Daemon;
use super::{cgroups, control_plane, network, preflight, registry};
use crate::second_cluster;

/// Takes the cluster down, and before it the second one of a test run that was interrupted. Does
/// nothing when there is none.
pub(super) fn run(cluster: &Cluster<'_>) -> Result<()> {
    preflight::require_root()?;
    if ClusterDir::beside().is_some_and(|dir| dir.root().exists()) {
        // In a network namespace of its own: what it removes there is not the first cluster's.
        let mut down = second_cluster::command(&["cluster", "down"]).context("finding this program")?;
        let title = "Stop and remove the second cluster";
        cluster.progress.expect(1);
        cluster.progress.step(title, |step| step.run(&mut down))?;
    }
    if !cluster.dir.root().exists() {
        cluster.progress.say("there is no local cluster");
        return Ok(());
    }
    let _lock = cluster.dir.lock()?;
    cluster.dir.require_own_or_dead(cluster.workspace)?;
    let owner = cluster.dir.owner()?.unwrap_or_default();
    cluster.progress.expect(1);
    cluster
        .progress
        .step("Stop and remove the cluster", |_| stop_and_clean(cluster, &owner))
}

/// Kills every process of the cluster, and removes nothing.
pub(super) fn stop(cluster: &Cluster<'_>) -> Result<()> {
    let dir = &cluster.dir;
    for node in &Node::all(dir)? {
        node.cut_power(dir)?;
    }
    for name in control_plane::PROCESSES.iter().rev().chain([&registry::PROCESS]) {
        Daemon::new(dir, name).kill()?;
    }
    for daemon in Daemon::all(dir)? {
        daemon.kill()?;
    }
    Ok(())
}

/// Stops and removes everything, the directory last, so that a failure on the way can be continued
/// by another `down`.
pub(super) fn stop_and_clean(cluster: &Cluster<'_>, owner: &Owner) -> Result<()> {
    let dir = &cluster.dir;
    // Killed and not asked: what they would still write is removed below, and the API server takes
    // ten seconds to end.
    stop(cluster)?;
    for node in &Node::all(dir)? {
        node.clean()?;
    }
    cgroups::clean()?;
    network::clean(owner)?;
    for place in owner.mount_points.iter().rev() {
        match fs::remove_dir(place) {
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(error).with_context(|| format!("removing {}", place.display()));
            }
            _ => {}
        }
    }
    dir.remove()
}
