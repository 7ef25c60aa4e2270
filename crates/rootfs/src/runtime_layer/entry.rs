/*!
One change of the container's root, done to the kept root.
*/

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, OFlags, Uid, chmodat, chownat, mknodat, readlinkat, symlinkat};
use rustix::io::Errno;

use super::{RuntimeLayerError, at, parent, remove, write};
use crate::cached_stat;
use crate::linker;
use crate::root::Root;
use crate::runtime_changes::{Entry, LINKER_CACHE, LINKER_CONFIG, LINKER_CONFIGS, What};

/// Does to the root what was done to the container's. `searched` are the directories of the loader.
pub(super) fn put(
    root: &Root,
    entry: &Entry,
    searched: &HashSet<PathBuf>,
    new: &mut HashSet<((u32, u32), u64)>,
) -> Result<(), RuntimeLayerError> {
    let path = &entry.path;
    // The content is made later. A configuration that the image has stays: hooks only make one
    // where there is none.
    let is_configured = || root.open(path, OFlags::PATH).is_ok();
    if path == Path::new(LINKER_CACHE) || (path == Path::new(LINKER_CONFIG) && is_configured()) {
        return Ok(());
    }
    let failed = at(path);
    if matches!(entry.what, What::Directory) {
        if root.open(path, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(());
        }
        let directory = root.create_directory(path, entry.mode)?;
        return give(&directory, OsStr::new("."), entry).map_err(failed);
    }
    let (parent, name) = parent(root, path)?;
    match &entry.what {
        What::Directory => {}
        What::Link(target) => {
            if readlinkat(&parent, name, Vec::new()).is_ok_and(|found| found == *target) {
                return Ok(());
            }
            remove(&parent, name).map_err(&failed)?;
            symlinkat(target, &parent, name).map_err(&failed)?;
        }
        What::File(content) if path.starts_with(LINKER_CONFIGS) => {
            let content = linker::without_directories(content, searched);
            write(&parent, name, &content, entry.mode).map_err(&failed)?;
        }
        What::File(content) => write(&parent, name, content, entry.mode).map_err(&failed)?,
        What::Special(kind, device) => {
            remove(&parent, name).map_err(&failed)?;
            mknodat(&parent, name, *kind, entry.mode, *device).map_err(&failed)?;
        }
    }
    give(&parent, name, entry).map_err(&failed)?;
    let made = cached_stat::at(&parent, name).map_err(&failed)?;
    new.insert((made.device, made.inode));
    Ok(())
}

/// Gives a file of the layer its owner and mode.
fn give(directory: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Errno> {
    let (user, group) = entry.owner;
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    match chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW) {
        // An owner that the pod's user namespace does not have: it stays the root of that.
        Ok(()) | Err(Errno::INVAL | Errno::OVERFLOW) => {}
        Err(e) => return Err(e),
    }
    if matches!(entry.what, What::Link(_)) {
        return Ok(());
    }
    // The umask took something away, and so did the change of the owner.
    chmodat(directory, name, entry.mode, AtFlags::empty())
}
