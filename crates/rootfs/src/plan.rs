/*!
The plan of a move, as data: which mounts go from a container's root to its new root.

It depends only on the container's mount table, so tests of it mount nothing.
*/

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cached_stat;
use crate::table::{Flags, Mount, Table};

/// What has to be done to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Mounts to move, in this order. What is mounted below one goes with it.
    pub moves: Vec<Move>,
    /// What the container's root forbids, which the new one must forbid too.
    pub flags: Flags,
    /// Devices of the /proc that the container has, wherever they are mounted.
    pub procs: Vec<(u32, u32)>,
    /// Devices, and types, of file systems that may ask another process or machine before they
    /// answer.
    pub foreign: Vec<((u32, u32), OsString)>,
}

/// One mount to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it is mounted now and will be.
    pub path: PathBuf,
    /// Whether the mountpoint must be a real directory of the new root, no link: the runtime's own
    /// file systems must not end up where an image points them to.
    pub real_directory: bool,
}

/// Directories whose mounts are the runtime's own.
const RUNTIME_DIRECTORIES: [&str; 3] = ["/proc", "/sys", "/dev"];

// === impl Plan ===

impl Plan {
    /// The plan for a container with this mount table, seen from its root. `None` if it has no root
    /// mount.
    pub fn new(table: &Table) -> Option<Self> {
        let root = table.root()?;
        let children: Vec<_> = table.children(root.id).collect();
        let moves = children
            .iter()
            .enumerate()
            .filter(|(at, mount)| !is_hidden(mount, &children[at + 1..]))
            .map(|(_, mount)| Move::new(&mount.mountpoint))
            .collect();
        let of_type = |is_it: fn(&[u8]) -> bool| {
            let mounts = table.mounts().iter();
            mounts.filter(move |mount| is_it(mount.fs_type.as_bytes()))
        };
        Some(Self {
            moves,
            flags: root.flags,
            procs: of_type(|kind| kind == b"proc")
                .map(|mount| mount.device)
                .collect(),
            foreign: of_type(cached_stat::needs_server)
                .map(|mount| (mount.device, mount.fs_type.clone()))
                .collect(),
        })
    }

    /// Whether a path is in something that is moved.
    pub fn is_mounted(&self, path: &Path) -> bool {
        self.moves.iter().any(|planned| path.starts_with(&planned.path))
    }
}

// === impl Move ===

impl Move {
    fn new(path: &Path) -> Self {
        let real_directory = RUNTIME_DIRECTORIES
            .iter()
            .any(|directory| path == Path::new(directory));
        Self {
            path: path.to_owned(),
            real_directory,
        }
    }
}

/// Whether a later mount covers the path of this one, so that no process sees it any more.
fn is_hidden(mount: &Mount, later: &[&Mount]) -> bool {
    later
        .iter()
        .any(|over| mount.mountpoint.starts_with(&over.mountpoint))
}

#[cfg(test)]
mod tests;
