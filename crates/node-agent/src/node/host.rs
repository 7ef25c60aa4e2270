/*!
The node's root and mount namespace, reached through the node's init process. So the agent's pod
needs no hostPath volume, and the agent mounts where the kubelet sees it.
*/

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rootfs::namespace::NamespaceThread;
use rootfs::{Namespace, Proc, Root};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, mkdirat, statx, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

/// The node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) proc: Proc,
    pub(crate) namespace: Namespace,
    pub(crate) root: Root,
}

/// The state of a volume's target path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Missing,
    Directory,
    Mounted,
}

// === impl Host ===

impl Host {
    /// Opens the node. Needs `hostPID` and the right to inspect process 1.
    pub(crate) fn open() -> Result<Self> {
        let proc = Proc::open()?;
        let namespace = proc
            .init_namespace()
            .context("the pod needs hostPID and must be privileged")?;
        let root = proc
            .init_root()
            .context("the pod needs hostPID and must be privileged")?;
        Ok(Self {
            proc,
            namespace,
            root,
        })
    }

    /// Opens a directory of the node, making what is missing.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o755);
        let made = self.root.create_directory(path, mode)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&made, ".", flags, Mode::empty())?)
    }

    /// Bind-mounts a directory at a target, read-only. The target's last component is made if it is
    /// missing.
    pub(crate) fn mount_volume(&self, source: &OwnedFd, target: &Path) -> Result<()> {
        self.in_node(|| {
            let (parent, name) =
                open_parent(target)?.context("the directory above the target does not exist")?;
            match mkdirat(&parent, &name, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).context("make the target"),
            }
            rustix::process::fchdir(&parent).context("enter the directory above the target")?;
            if look(&parent, &name)? != Target::Mounted {
                // By the number of a descriptor: the path of the source never matters.
                mount_bind(format!("/proc/self/fd/{}", source.as_raw_fd()), &name).context("bind")?;
            }
            // Also where it was mounted: the agent that mounted it may have died before this.
            let restricted = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            if let Err(e) = mount_remount(&name, restricted, "") {
                unmount(&name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .context("take back the mount")?;
                return Err(e).context("make the mount read-only");
            }
            Ok(())
        })
    }

    /// Unmounts and removes a target. Fine if it is not there.
    pub(crate) fn unmount_volume(&self, target: &Path) -> Result<()> {
        self.in_node(|| {
            let Some((parent, name)) = open_parent(target)? else {
                return Ok(());
            };
            rustix::process::fchdir(&parent).context("enter the directory above the target")?;
            // Usually once. Bounded, so that a process that mounts as fast as this unmounts cannot
            // keep the agent busy.
            for _ in 0..64 {
                match look(&parent, &name)? {
                    Target::Missing => return Ok(()),
                    Target::Mounted => {
                        unmount(&name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).context("unmount")?;
                    }
                    Target::Directory => return remove_target(&parent, &name),
                }
            }
            bail!("the target is mounted again and again")
        })
    }

    /// The state of a target path.
    pub(crate) fn target(&self, target: &Path) -> Result<Target> {
        self.in_node(|| match open_parent(target)? {
            Some((parent, name)) => look(&parent, &name),
            None => Ok(Target::Missing),
        })
    }

    /// Runs `work` on a thread in the node's mount namespace.
    fn in_node<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        NamespaceThread::run(|thread| {
            thread
                .enter(&self.namespace)
                .context("enter the node's mount namespace")?;
            work()
        })
        .context("start a thread")?
    }
}

/// The directory above the last component of a target, and that component.
fn open_parent(target: &Path) -> Result<Option<(OwnedFd, PathBuf)>> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("{} is not a target", target.display());
    };
    let root = Root::of_this_thread()?;
    match root.open(parent, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => Ok(Some((fd, name.into()))),
        Err(e) if matches!(e.problem, rootfs::root::Problem::System(Errno::NOENT)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn look(parent: &OwnedFd, name: &Path) -> Result<Target> {
    // The file system that is mounted there is not asked: the kernel knows type and mount by
    // itself.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = match statx(parent, name, flags, StatxFlags::empty()) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Target::Missing),
        Err(e) => return Err(e).context("examine the target"),
    };
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(Target::Mounted);
    }
    if rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) != rustix::fs::FileType::Directory {
        bail!("the target is not a directory");
    }
    Ok(Target::Directory)
}

fn remove_target(parent: &OwnedFd, name: &Path) -> Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).context("remove the target"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
