/*!
The mount engine with real mounts.

Every test runs in a private copy of the machine's mount namespace (its "node"),
and containers are processes with namespaces of their own, made the way runtimes
make them: overlay root, mounts, pivot_root. Needs root.
*/

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "rootfs/container.rs"]
mod container;
#[path = "rootfs/disk.rs"]
mod disk;
#[path = "rootfs/durable_prefix.rs"]
mod durable_prefix;
#[path = "rootfs/full_disk.rs"]
mod full_disk;
#[path = "rootfs/fuse.rs"]
mod fuse;
#[path = "rootfs/hostile.rs"]
mod hostile;
#[path = "rootfs/interrupted.rs"]
mod interrupted;
#[path = "rootfs/layers.rs"]
mod layers;
#[path = "rootfs/moved.rs"]
mod moved;
#[path = "rootfs/node.rs"]
mod node;
#[path = "rootfs/one_writer.rs"]
mod one_writer;
#[path = "rootfs/overlays.rs"]
mod overlays;
#[path = "rootfs/power_cut.rs"]
mod power_cut;
#[path = "rootfs/probe.rs"]
mod probe;
#[path = "rootfs/races.rs"]
mod races;
#[path = "rootfs/removal.rs"]
mod removal;
#[path = "rootfs/silent_volumes.rs"]
mod silent_volumes;
#[path = "rootfs/special_files.rs"]
mod special_files;
#[path = "rootfs/store.rs"]
mod store;
#[path = "rootfs/unsuitable.rs"]
mod unsuitable;
#[path = "rootfs/untouched.rs"]
mod untouched;
#[path = "rootfs/user_namespaces.rs"]
mod user_namespaces;
