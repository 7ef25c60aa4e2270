/*!
The node: its root and mount namespace, its container runtime, its disks. Nothing here knows of
instances or volumes.
*/

pub(crate) mod cgroup;
pub(crate) mod cri;
pub(crate) mod disks;
pub(crate) mod host;
pub(crate) mod image_config;
pub(crate) mod image_lease;
pub(crate) mod space;
