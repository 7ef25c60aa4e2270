/*!
Builds a kept root filesystem and moves a running container onto it.

A *store* ([`Store`]) is a directory of the node in which each kept filesystem has a directory of
its own, named by a key, with the upper and work directories of an overlay. [`attach()`] makes the
overlay, enters the mount namespace of a container that a container runtime started, moves every
mount of that container below it, and makes it the container's root.

What the library relies on: it runs as root in the node's PID namespace, and its callers name
processes by descriptor ([`Process`]). What it promises: no path of an untrusted root is ever
resolved outside that root, no overlay is made on an upper directory that another overlay uses, and
a call that ended half-way (the caller was killed) is repaired by the next call.

It knows nothing of Kubernetes and starts no async runtime; calls block.
*/

mod apply;
pub mod attach;
mod cached_stat;
pub mod diff;
pub mod files;
pub mod holders;
pub mod layers;
mod linker;
pub mod namespace;
pub mod overlay;
pub mod plan;
pub mod process;
pub mod remove;
pub mod root;
mod runtime_changes;
mod runtime_layer;
pub mod store;
mod sys;
pub mod table;
#[cfg(feature = "test-hooks")]
pub mod test_hooks;
pub mod usage;
pub mod user_namespace;
mod walk;

pub use apply::ApplyError;
pub use attach::{AttachError, Attached, Request, attach};
pub use linker::LinkerError;
pub use namespace::Namespace;
pub use process::{Proc, Process};
pub use root::Root;
pub use runtime_changes::ChangesError;
pub use runtime_layer::{HookMode, Repeat, RuntimeLayerError};
pub use store::{Kept, Store};
pub use user_namespace::UserNamespace;

/// Mount source of a kept root, the field after the file system type in mountinfo. Only a process
/// that may mount can set it.
pub const SOURCE: &str = "stoppablecontainer";
