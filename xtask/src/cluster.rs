/*!
The local cluster: a real Kubernetes of one or more nodes on this machine, for the demo, the tests
and for playing.

Everything it is lives below one directory ([`dir::ClusterDir`]); what must be outside (bridges,
control groups, nft tables, kernel settings, mount points) is made and removed here.

A file imports only files before it in this list:

- `dir`: the directory and its lock; `node`: the names, addresses and ports of a node
- `cgroups`, `network`; `process`, `pki`, `partition`, `cri_o`; `ownership`, `node_config`, `etcd`
- `machine`, `node_init`, `node_life`, `control_plane`, `registry`
- `context`: what every command works with; `preflight`
- `status`, `down`; `up`; `membership`; and this file, which has the commands
*/

mod cgroups;
mod context;
pub(crate) mod control_plane;
mod cri_o;
pub(crate) mod dir;
mod down;
mod etcd;
mod machine;
mod membership;
mod network;
mod node;
mod node_config;
mod node_init;
mod node_life;
mod ownership;
mod partition;
pub(crate) mod pki;
mod preflight;
mod process;
pub(crate) mod registry;
mod status;
mod up;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::tools::{Lsm, Release, Tools};

pub(crate) use context::Cluster;
pub(crate) use node::{DISK, FSTAB};
pub(crate) use node_config::PAUSE_IMAGE;

/// Numbers of the virtual machines of tests, away from those of other nodes.
const APPARMOR_INDEX: u8 = 9;
const SELINUX_INDEX: u8 = 8;

// === impl Cluster ===

impl Cluster<'_> {
    /// Brings it up with at least this many nodes: from nothing, from what a crash or a reboot
    /// left, or not at all when it is up.
    pub(crate) fn up(&self, nodes: u8) -> Result<()> {
        up::run(self, nodes)
    }

    /// Downloads and builds its programs.
    pub(crate) fn programs(&self, vm: Option<Lsm>) -> Result<()> {
        self.progress.expect(Tools::CLUSTER_STEPS + 1);
        self.tools.prepare_cluster(self.workspace, self.progress)?;
        if let Some(lsm) = vm {
            self.tools.prepare_machine(self.progress, lsm)?;
        }
        Tools::prepare_images(self.progress)
    }

    /// Stops its processes and removes everything that it made.
    pub(crate) fn down(&self) -> Result<()> {
        down::run(self)
    }

    /// Prints what runs. Returns whether all of it does.
    pub(crate) fn status(&self) -> Result<bool> {
        status::print(self)
    }

    /// Cuts a node's power, starts it again and waits until it is Ready. The disk of a virtual
    /// machine then has a write cache or not, or what it had.
    pub(crate) fn reboot(&self, name: &str, write_cache: Option<bool>) -> Result<()> {
        let _lock = self.lock_existing()?;
        let node = self.existing_node(name)?;
        if write_cache.is_some() && !node.is_machine() {
            bail!("{name} is not a virtual machine, and --write-cache is for the disk of one");
        }
        self.progress.expect(2);
        self.progress
            .step(&format!("Cut the power of {name}"), |_| node.cut_power(&self.dir))?;
        if let Some(write_cache) = write_cache {
            machine::Settings { write_cache }.set(&node, &self.dir)?;
        }
        self.progress.step(&format!("Start {name}"), |step| {
            up::start_nodes(self, &[node], step)
        })
    }

    /// The name of the node that is a virtual machine with this security module.
    pub(crate) fn machine_name(lsm: Lsm) -> String {
        let index = match lsm {
            Lsm::AppArmor => APPARMOR_INDEX,
            Lsm::SeLinux => SELINUX_INDEX,
        };
        node::Node::numbered(node::Kind::Machine(lsm), index).name
    }

    /// Path of `ctr` in a virtual machine, if it is not in its `PATH`.
    pub(crate) fn machine_ctr(release: Release) -> Option<PathBuf> {
        release.containerd().map(|_| machine::program("ctr"))
    }

    /// What a virtual machine says about itself when it boots: values by names.
    pub(crate) fn machine_facts(&self, name: &str) -> Result<BTreeMap<String, String>> {
        machine::facts(&self.existing_node(name)?, &self.dir)
    }

    /// Adds a node, or starts it if it is there, and waits until it is Ready.
    pub(crate) fn add(&self, name: &str) -> Result<()> {
        let _lock = self.lock_existing()?;
        membership::add(self, name)
    }

    /// Cuts a node's power, deletes its Node object, and removes its disk.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let _lock = self.lock_existing()?;
        membership::remove(self, name)
    }

    /// Removes a node, and adds `by`, which has the disk of its kept filesystems.
    pub(crate) fn replace(&self, name: &str, by: &str) -> Result<()> {
        let _lock = self.lock_existing()?;
        membership::replace(self, name, by)
    }

    /// Removes all nodes but the first, which earlier tests may have added.
    pub(crate) fn keep_first_node(&self) -> Result<()> {
        let _lock = self.lock_existing()?;
        membership::keep_first(self)
    }

    /// Cordons a node and evicts its pods, for at most `timeout` seconds.
    pub(crate) fn drain(&self, name: &str, timeout: u32) -> Result<()> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        membership::drain(self, name, timeout)
    }

    /// Cuts the power of the control plane and of all nodes, and starts everything again, with the
    /// content that etcd had in this snapshot.
    pub(crate) fn restart(&self, snapshot: Option<&Path>) -> Result<()> {
        let _lock = self.lock_existing()?;
        if snapshot.is_some() {
            self.progress.expect(1);
            self.tools.prepare_etcdctl(self.progress)?;
        }
        self.progress.expect(1 + up::STEPS);
        self.progress
            .step("Cut the power of the whole cluster", |_| down::stop(self))?;
        if let Some(file) = snapshot {
            self.progress.expect(1);
            self.progress.step("Restore the snapshot of etcd", |_| {
                etcd::restore(&self.dir, &self.tools, file)
            })?;
        }
        up::start_existing(self)
    }

    /// Cuts a node and the pods with these addresses off from the API server until standard input
    /// ends.
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
        etcd::keys(&self.dir, &self.tools)
    }

    /// Saves what etcd holds into a new file.
    pub(crate) fn etcd_snapshot(&self, file: &Path) -> Result<()> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.progress.expect(2);
        self.tools.prepare_etcdctl(self.progress)?;
        let title = format!("Save a snapshot of etcd into {}", file.display());
        self.progress
            .step(&title, |_| etcd::save(&self.dir, &self.tools, file))
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

    fn lock_existing(&self) -> Result<dir::Lock> {
        preflight::require_root()?;
        self.existing_kubeconfig()?;
        self.dir.require_own(self.workspace)?;
        self.dir.lock()
    }
}
