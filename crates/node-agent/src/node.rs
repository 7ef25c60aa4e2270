/*!
The node: its root and mount namespace, its container runtime, its disks. Nothing here knows of
instances or volumes.
*/

pub(crate) mod cgroup;
mod container_info;
mod cri;
mod disks;
mod hooks;
mod host;
pub(crate) mod image_config;
pub(crate) mod image_lease;
mod readers;
mod runtimes;
pub(crate) mod space;

use std::sync::Arc;

pub(crate) use self::cri::{Container, Cri, CriError};
pub(crate) use self::disks::{Disk, Disks};
pub(crate) use self::hooks::Hooks;
#[cfg(test)]
pub(crate) use self::host::tests::on_node;
pub(crate) use self::host::{Host, Target};
pub(crate) use self::runtimes::Runtime;
#[cfg(test)]
pub(crate) use self::runtimes::fake;
pub(crate) use self::space::Minimum;

/// The node, as the agent reaches it.
#[derive(Debug)]
pub(crate) struct Node {
    /// Name of its Node object.
    pub(crate) name: String,
    pub(crate) host: Arc<Host>,
    pub(crate) cri: Cri,
    pub(crate) disks: Disks,
    pub(crate) minimum_free: Minimum,
}
