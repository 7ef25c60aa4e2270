//! Whether a process is on a kept filesystem, and that filesystem as it sees it.

use rustix::mount::{OpenTreeFlags, open_tree};

use super::{AttachError, at, is_kept_root, is_of};
use crate::cached_stat;
use crate::namespace::NamespaceThread;
use crate::process::{Proc, Process, ProcessError};
use crate::table;
use crate::{Root, UserNamespace};

/// Whether a process sees the kept filesystem as its root. A process in another user namespace than
/// its pod does not, whatever its mounts are called. `users` is that of the pod, if it is not the
/// caller's.
pub fn is_attached(
    proc: &Proc,
    process: &Process,
    users: Option<&UserNamespace>,
    kept: &str,
) -> Result<bool, ProcessError> {
    let look = || {
        for mount in table::mounts(process.open_mounts(proc)?) {
            let mount = mount?;
            if is_kept_root(&mount) {
                return Ok(is_of(&mount, kept));
            }
        }
        Ok(false)
    };
    Ok(process.read_if_in(proc, users, look)?.unwrap_or(false))
}

/// Whether a process came into its container while that changed over: its root is the one of
/// before, and will never be another, and the container is on the kept filesystem.
pub fn is_left_behind(
    proc: &Proc,
    process: &Process,
    users: Option<&UserNamespace>,
    kept: &str,
) -> Result<bool, AttachError> {
    let namespace = process.mount_namespace(proc)?;
    let look = |thread: &NamespaceThread| {
        thread
            .enter(&namespace)
            .map_err(at("enter the container's mount namespace"))?;
        let table = proc.own_mounts()?;
        Ok::<_, AttachError>(
            table
                .root()
                .is_some_and(|root| is_kept_root(root) && is_of(root, kept)),
        )
    };
    let moved: bool = NamespaceThread::run(look).map_err(at("start a thread"))??;
    // In this order: what was in the container before is on the kept filesystem by the time that
    // others come onto it.
    Ok(moved && !is_attached(proc, process, users, kept)?)
}

/// The kept filesystem that a process has as its root, without the mounts on it: a pod's mounts are
/// not the image's, and may not answer a read. `None` if the process is not on it: a holder
/// ([`holders::find`]) only has a mount with the right name, which every user with a user namespace
/// can choose, and the root of such a process is something else. So it must be in `users`, the
/// user namespace of the consumer's pod, or without one in the caller's. The owners of files are
/// those that the caller sees.
pub fn root_of(
    proc: &Proc,
    process: &Process,
    users: Option<&UserNamespace>,
    kept: &str,
) -> Result<Option<Root>, AttachError> {
    let Some(namespace) = process.read_if_in(proc, users, || process.mount_namespace(proc))? else {
        return Ok(None);
    };
    let look = |thread: &NamespaceThread| {
        thread
            .enter(&namespace)
            .map_err(at("enter the container's mount namespace"))?;
        let Some(root) = proc.find_own_kept_root()?.filter(|root| is_of(root, kept)) else {
            return Ok(None);
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let alone =
            open_tree(rustix::fs::CWD, "/", flags).map_err(at("clone the root of the kept filesystem"))?;
        // While a container changes over, its old root lies there.
        let seen = cached_stat::of(&alone).map_err(at("examine the root of the kept filesystem"))?;
        Ok((seen.device == root.device).then(|| Root::new(alone)))
    };
    NamespaceThread::run(look).map_err(at("start a thread"))?
}
