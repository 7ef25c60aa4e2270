/*!
The clone that owns the cluster: a clone uses and removes its own cluster, and one of another clone
only when nothing of that is left.
*/

use anyhow::{Result, bail};

use super::dir::ClusterDir;
use super::process::Daemon;
use crate::workspace::Workspace;

// === impl ClusterDir ===

impl ClusterDir {
    /// Refuses a cluster of another clone that still exists, unless nothing of the cluster runs: an
    /// interrupted command or a reboot left such a one, and its clone does not need it. Only under
    /// the lock is the answer more than a first look.
    pub(super) fn require_own_or_dead(&self, workspace: &Workspace) -> Result<()> {
        let alive = Daemon::all(self)?.iter().any(|daemon| daemon.pid().is_some());
        if alive {
            self.require_own(workspace)
        } else {
            Ok(())
        }
    }

    /// Refuses a cluster that belongs to another clone which still exists.
    pub(super) fn require_own(&self, workspace: &Workspace) -> Result<()> {
        match self.owner()? {
            Some(owner) if owner.clone != workspace.root() && owner.clone.join("Cargo.toml").is_file() => {
                bail!(
                    "the local cluster of this machine belongs to the clone in {0}. Use it from there, point KUBECONFIG at {1}, \
                 or remove it with `cd {0} && cargo xtask cluster down`",
                    owner.clone.display(),
                    self.admin_kubeconfig().display()
                )
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::dir::Owner;
    use super::super::process::start_time;
    use super::*;

    /// A machine was handed on while another clone's test run was in the middle: its cluster's
    /// processes were gone, its directory was not, and no clone but that one could bring a cluster
    /// up or down any more.
    #[test]
    fn a_cluster_of_another_clone_is_respected_only_while_something_of_it_runs() {
        let place = std::env::temp_dir().join(format!("cluster-of-others-{}", std::process::id()));
        let dir = ClusterDir::at(place.join("cluster"));
        let workspace = Workspace::current();
        let other = place.join("clone");
        for directory in [other.clone(), dir.join("processes")] {
            fs::create_dir_all(directory).expect("making a directory");
        }
        fs::write(other.join("Cargo.toml"), "").expect("writing a file");
        let owner = Owner {
            clone: other,
            ..Owner::default()
        };
        dir.set_owner(&owner).expect("writing the owner");
        assert!(dir.require_own(&workspace).is_err(), "it is the other's");
        dir.require_own_or_dead(&workspace).expect("nothing runs");

        let myself = i32::try_from(std::process::id()).expect("a process id");
        let start = start_time(myself).expect("this process runs");
        let daemon = Daemon::new(&dir, "etcd");
        daemon.remember(myself, start + 1).expect("writing a record");
        dir.require_own_or_dead(&workspace)
            .expect("the process that has its number now is another one");
        daemon.remember(myself, start).expect("writing a record");
        let error = dir.require_own_or_dead(&workspace).expect_err("etcd runs");
        assert!(
            format!("{error:#}").contains("belongs to the clone in"),
            "{error:#}"
        );
        fs::remove_dir_all(&place).expect("cleaning");
    }
}
