/*!
Facts about a file that the kernel knows without a request to the file system.

A pod's volume may be a file system whose server is a tenant's process (FUSE) and does not answer: a
caller that asks it hangs until it does, and cannot be killed. So about a container's mounts the
agent asks only what the kernel knows by itself: with `AT_STATX_DONT_SYNC` and an empty mask of
wanted fields the kernel sends no request (fs/fuse/dir.c, `fuse_getattr` and `fuse_update_get_attr`;
with `STATX_TYPE` it sends one once the server has declared its attributes out of date). It returns
device and type, which never change, and the mount all the same.
*/

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, FileType, OFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::process::Proc;

/// Types of file systems whose server is a user's process or another machine.
const ASKING: [&str; 8] = ["9p", "afs", "ceph", "cifs", "lustre", "nfs", "nfs4", "smb3"];

/// What the kernel knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CachedStat {
    /// Major and minor number of its file system.
    pub(crate) device: (u32, u32),
    /// Its number in that. Zero where the file system refuses to serve the caller.
    pub(crate) inode: u64,
    /// The mount that it was reached by.
    pub(crate) mount: u64,
    /// Whether it is the root of that.
    pub(crate) is_mount_root: bool,
    /// Unknown where the file system refuses to serve the caller.
    pub(crate) kind: FileType,
}

/// Looks at an open file.
pub(crate) fn of(fd: impl AsFd) -> Result<CachedStat, Errno> {
    look(fd, c"", AtFlags::EMPTY_PATH)
}

/// Looks at an entry of a directory. A link is itself, and what is mounted on the entry is looked
/// at in its place.
pub(crate) fn at(directory: impl AsFd, name: impl Arg) -> Result<CachedStat, Errno> {
    look(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// Looks at what a link of /proc stands for.
pub(crate) fn through(proc: &Proc, link: impl Arg) -> Result<CachedStat, Errno> {
    look(proc, link, AtFlags::NO_AUTOMOUNT)
}

/// Whether an open file is a directory, also where its file system refuses to serve the caller.
pub(crate) fn is_directory(proc: &Proc, fd: impl AsFd) -> Result<bool, Errno> {
    let kind = of(&fd)?.kind;
    if kind != FileType::Unknown {
        return Ok(kind == FileType::Directory);
    }
    // Nothing is opened, so no server is asked: the kernel compares the type that it knows.
    let path = format!("thread-self/fd/{}", fd.as_fd().as_raw_fd());
    match proc.open_at(path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(_) => Ok(true),
        Err(Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a lookup in such a file system may have to wait for a user's process or another machine.
pub(crate) fn needs_server(fs_type: &[u8]) -> bool {
    fs_type.starts_with(b"fuse") || ASKING.iter().any(|asking| asking.as_bytes() == fs_type)
}

fn look(directory: impl AsFd, name: impl Arg, flags: AtFlags) -> Result<CachedStat, Errno> {
    let stat = statx(
        directory,
        name,
        flags | AtFlags::STATX_DONT_SYNC,
        StatxFlags::empty(),
    )?;
    Ok(CachedStat {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        mount: stat.stx_mnt_id,
        is_mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::needs_server;

    #[test]
    fn i18_file_systems_that_ask_a_server() {
        for asking in ["fuse", "fuseblk", "fuse.sshfs", "nfs", "nfs4", "ceph"] {
            assert!(needs_server(asking.as_bytes()), "{asking}");
        }
        for own in ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "proc", "nfsd"] {
            assert!(!needs_server(own.as_bytes()), "{own}");
        }
    }
}
