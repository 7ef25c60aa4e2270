/*!
The mount engine with real mounts.

Every test runs in a private copy of the machine's mount namespace (its "node"), and containers are
processes with namespaces of their own, made the way runtimes make them: overlay root, mounts,
pivot_root. Needs root.
*/

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod container;
mod diff;
mod directory_usage;
mod disk;
mod durable_prefix;
mod full_disk;
mod fuse;
mod hostile;
mod interrupted;
mod kernel;
mod layers;
mod moved;
mod node;
mod one_writer;
mod overlays;
mod pod_users;
mod power_cut;
mod probe;
mod races;
mod removal;
mod runtime_layer;
mod special_files;
mod store;
mod unresponsive_volumes;
mod unsuitable;
mod untouched;
mod user_namespaces;
