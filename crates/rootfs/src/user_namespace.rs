/*!
The user namespace of a pod (`hostUsers: false`), and mounts whose files have the owners that the
pod sees.

On disk a kept filesystem has the owners that its image has, in every pod. A pod in a user namespace
of its own gets them by idmapped mounts (mount_setattr(2), `MOUNT_ATTR_IDMAP`): of every layer, and
of the directory with upper and work directory. The overlay of those belongs to the node, so what
containers may do with set-user-ID files and file capabilities is as on an overlay of a runtime.
*/

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::namespace::NamespaceThread;
use crate::sys;

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    fd: OwnedFd,
}

/// Ids of a user namespace that are a range of ids outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many there are.
    pub length: u32,
}

/// The ids of a user namespace, as its creator mapped them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub users: Vec<IdRange>,
    /// Groups.
    pub groups: Vec<IdRange>,
}

/// User and group that are 0 in a user namespace, as the caller knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootIds {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

// === impl UserNamespace ===

impl UserNamespace {
    /// `fd` is an open `/proc/PID/ns/user`.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Device and inode: equal for equal namespaces.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether it was made in this one, and not in one below.
    pub fn is_child_of(&self, parent: &Self) -> Result<bool, Errno> {
        match sys::parent_namespace(&self.fd) {
            Ok(found) => Ok(Self::new(found).identity()? == parent.identity()?),
            // The first namespace, or one that the caller is not in.
            Err(Errno::PERM) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// A detached mount of a directory whose files have the owners that this namespace sees. What
    /// is mounted below the directory is not in it. The directory must be in the mount namespace
    /// that the thread is in.
    pub(crate) fn mapped(&self, directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(directory, "", flags)?;
        sys::map_owners(&mount, &self.fd)?;
        Ok(mount)
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl IdMaps ===

impl IdMaps {
    /// The owners that are 0 inside. `None` if no owner is.
    pub(crate) fn root(&self) -> Option<RootIds> {
        let outside = |ranges: &[IdRange]| {
            let range = ranges
                .iter()
                .find(|range| range.inside == 0 && range.length > 0)?;
            Some(range.outside)
        };
        Some(RootIds {
            user: outside(&self.users)?,
            group: outside(&self.groups)?,
        })
    }
}

// === impl IdRange ===

impl IdRange {
    /// Lines of a `/proc/PID/uid_map`, see user_namespaces(7). `None` if they are something else.
    pub(crate) fn parse(map: &str) -> Option<Vec<Self>> {
        map.lines()
            .map(|line| {
                let mut numbers = line.split_ascii_whitespace().map(str::parse);
                let mut next = || numbers.next()?.ok();
                Some(Self {
                    inside: next()?,
                    outside: next()?,
                    length: next()?,
                })
            })
            .collect()
    }
}

/// Puts detached mounts where an overlay may have them as layers: before kernel 6.15 they must be
/// in the caller's mount namespace, and nothing may be mounted in the node's. So the thread leaves
/// for a copy, where they lie on a directory that surely exists, one over the other: only their
/// descriptors are used.
pub(crate) fn attach_in_copy<'a>(
    thread: &NamespaceThread,
    mounts: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Result<(), Errno> {
    thread.enter_private_copy()?;
    for mount in mounts {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, "", rustix::fs::CWD, "/sys", flags)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h20_maps_are_read_as_the_kernel_writes_them() {
        let range = |inside, outside, length| IdRange {
            inside,
            outside,
            length,
        };
        let whole = "         0          0 4294967295\n";
        assert_eq!(IdRange::parse(whole), Some(vec![range(0, 0, u32::MAX)]));
        let two = "1 7 1\n0 65536 1\n";
        let ranges = IdRange::parse(two).unwrap();
        assert_eq!(ranges, [range(1, 7, 1), range(0, 65536, 1)]);
        let maps = |users: &[IdRange], groups: &[IdRange]| IdMaps {
            users: users.to_vec(),
            groups: groups.to_vec(),
        };
        let root = RootIds {
            user: 65536,
            group: 9,
        };
        assert_eq!(maps(&ranges, &[range(0, 9, 5)]).root(), Some(root));
        assert_eq!(maps(&ranges, &[range(1, 9, 5)]).root(), None);
        for none in ["x", "0 0", "0 0 -1", "0 0 4294967296"] {
            assert_eq!(IdRange::parse(none), None, "{none:?}");
        }
    }
}
