//! Finds the part of a kept filesystem that is to be compared. No link is followed.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat, readlinkat, statat};
use rustix::io::Errno;

use super::compare::{self, is_whiteout_stat};
use super::{DiffError, type_of};
use crate::Root;
use crate::walk::open_below;

/// What is at a path.
pub(crate) enum Found {
    /// A directory of the user.
    Directory {
        directory: OwnedFd,
        /// Whether a directory above it hides that of the image.
        hidden: bool,
    },
    /// Something else of the user, or the mark that it was deleted.
    File {
        parent: OwnedFd,
        name: CString,
        stat: Stat,
    },
    /// A directory above it hides what the image has there.
    Deleted(FileType),
    /// What the image has.
    Unchanged,
}

/// `path` is relative to the root.
pub(crate) fn locate(upper: &OwnedFd, image: &Root, path: &Path) -> Result<Found, DiffError> {
    let mut directory = open_below(upper.as_fd(), c".")?;
    let mut hidden = false;
    let mut so_far = PathBuf::new();
    for component in path.components() {
        let name = compare::c_path(Path::new(component.as_os_str()))?;
        so_far.push(component);
        let is_last = so_far == path;
        let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return in_image(image, path, hidden),
            Err(e) => return Err(e.into()),
        };
        match type_of(&stat) {
            FileType::Directory => {
                // What hides what is below it is examined when the walk enters it.
                if !is_last {
                    let below = open_below(directory.as_fd(), &name)?;
                    hidden |= compare::is_opaque(&below)?;
                    directory = below;
                    continue;
                }
                directory = open_below(directory.as_fd(), &name)?;
            }
            FileType::Symlink if !is_last => {
                let target = readlinkat(&directory, &name, Vec::new())?;
                return Err(link(&so_far, target));
            }
            _ if is_last => {
                let parent = directory;
                return Ok(Found::File { parent, name, stat });
            }
            _ if is_whiteout_stat(&stat) && compare::look(image.as_fd(), path)?.is_some() => {
                return in_image(image, path, true);
            }
            _ => return Err(DiffError::NotFound(Path::new("/").join(path))),
        }
    }
    Ok(Found::Directory { directory, hidden })
}

/// A path that the user does not have.
fn in_image(image: &Root, path: &Path, hidden: bool) -> Result<Found, DiffError> {
    let ancestors: Vec<_> = path
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    for above in ancestors.into_iter().rev() {
        match compare::look(image.as_fd(), above)? {
            None => return Err(DiffError::NotFound(Path::new("/").join(path))),
            Some((found, stat)) if type_of(&stat) == FileType::Symlink && above != path => {
                return Err(link(above, readlinkat(&found, c"", Vec::new())?));
            }
            Some((_, stat)) if hidden && above == path => return Ok(Found::Deleted(type_of(&stat))),
            Some(_) => {}
        }
    }
    Ok(Found::Unchanged)
}

fn link(path: &Path, target: CString) -> DiffError {
    debug_assert!(!path.as_os_str().as_bytes().is_empty());
    DiffError::Link {
        path: Path::new("/").join(path),
        target: OsString::from_vec(target.into_bytes()).into(),
    }
}
