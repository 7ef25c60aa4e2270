/*!
The directories of the runtime layer of a kept filesystem, and what it covers.

```text
KEY/
  runtime/
    upper/     what the runtime did to the container's root, at this start
    work/      the kernel's
  covered/     what the user has at the paths of that, at the same paths
```

The layer lies below the upper directory. What the user has at a path of the layer would hide it,
so it waits in `covered` until the next start: a plain pod also has the hook's file there, and the
image's again without the hook. All of it is on the disk of the kept filesystem, so that an
interrupted start is settled by the next one.
*/

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags, fchmod, fgetxattr,
    fremovexattr, fsetxattr, mkdirat, mknodat, openat2, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::{Kept, StoreError, make_directory, open_directory};
use crate::remove;

/// Name of the directory with the layer.
const RUNTIME: &str = "runtime";
/// Name of the directory with what the layer covers.
pub(crate) const COVERED: &str = "covered";
/// How an overlay marks a directory that hides those below it (overlayfs.rst, "whiteouts and opaque
/// directories").
const OPAQUE: &str = "trusted.overlay.opaque";

/// Most names of one directory of the layer.
const MAX_NAMES: usize = 100_000;

/// The upper directory of the layer, relative to the directory of the kept filesystem.
pub(crate) const UPPER: &str = "runtime/upper";
/// Its work directory.
pub(crate) const WORK: &str = "runtime/work";

// === impl Kept ===

impl Kept {
    /// Whether an earlier start left a layer.
    pub(crate) fn has_runtime(&self) -> Result<bool, StoreError> {
        for name in [RUNTIME, COVERED] {
            match open_directory(&self.fd, name) {
                Ok(_) => return Ok(true),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(self.fail("cannot open the layer of the container runtime")(e)),
            }
        }
        Ok(false)
    }

    /// One of the directories, if it is there.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<OwnedFd>, StoreError> {
        optional(open_directory(&self.fd, name))
            .map_err(self.fail("cannot open the layer of the container runtime"))
    }

    /// Whether the layer has something at a path.
    pub(crate) fn runtime_has(&self, path: &str) -> Result<bool, StoreError> {
        let fail = self.fail("cannot examine the layer of the container runtime");
        match optional(open_directory(&self.fd, UPPER)).map_err(&fail)? {
            Some(layer) => has(&layer, path).map_err(fail),
            None => Ok(false),
        }
    }

    /// Whether the user has a file at a path.
    pub(crate) fn upper_has(&self, path: &str) -> Result<bool, StoreError> {
        has(&self.upper()?, path).map_err(self.fail("cannot examine the upper directory"))
    }

    /// Removes the layer of an earlier start: what it covered is back, and the names that the user
    /// deleted of it are no longer deleted, as there is nothing left to hide. `is_in_image` knows
    /// what the image has. The kept filesystem is not in use.
    pub(crate) fn settle_runtime(&self, is_in_image: impl Fn(&Path) -> bool) -> Result<(), StoreError> {
        let fail = self.fail("cannot remove the layer of the container runtime");
        let upper = self.upper()?;
        if let Some(covered) = optional(open_directory(&self.fd, COVERED)).map_err(&fail)? {
            for (path, _) in tree(&covered)
                .map_err(&fail)?
                .iter()
                .filter(|(_, kind)| *kind != FileType::Directory)
            {
                uncover(&covered, &upper, path).map_err(&fail)?;
            }
        }
        if let Some(layer) = optional(open_directory(&self.fd, UPPER)).map_err(&fail)? {
            for (path, _) in tree(&layer).map_err(&fail)? {
                let Some((parent, name)) = parent_of(&upper, &path).map_err(&fail)? else {
                    continue;
                };
                if is_whiteout(&parent, name).map_err(&fail)? && !is_in_image(&path) {
                    unlinkat(&parent, name, AtFlags::empty()).map_err(&fail)?;
                }
            }
        }
        // In this order: what an interrupted call covered is still covered by the layer.
        remove::tree(self.fd.as_fd(), COVERED).map_err(&fail)?;
        remove::tree(self.fd.as_fd(), RUNTIME).map_err(fail)
    }

    /// Makes the directories of a new layer. There is none.
    pub(crate) fn make_runtime(&self) -> Result<(), StoreError> {
        let fail = self.fail("cannot make the layer of the container runtime");
        make_directory(&self.fd, RUNTIME).map_err(&fail)?;
        for path in [UPPER, WORK] {
            make_directory(&self.fd, path).map_err(&fail)?;
        }
        let upper = open_directory(&self.fd, UPPER).map_err(&fail)?;
        fchmod(&upper, Mode::from_raw_mode(0o755)).map_err(fail)
    }

    /// The directory of the layer.
    pub(crate) fn runtime(&self) -> Result<OwnedFd, StoreError> {
        open_directory(&self.fd, UPPER).map_err(self.fail("cannot open the layer of the container runtime"))
    }

    /// Makes all of the layer visible below the upper directory: covers what the user has at its
    /// paths, and opens directories that hide what is below them. `image` lists a directory of the
    /// image.
    pub(crate) fn reveal_runtime(
        &self,
        image: impl Fn(&Path) -> Result<Vec<(PathBuf, FileType)>, Errno>,
    ) -> Result<(), StoreError> {
        let fail = self.fail("cannot show the layer of the container runtime");
        let (layer, upper) = (self.runtime()?, self.upper()?);
        for (path, kind) in tree(&layer).map_err(&fail)? {
            let Some((parent, name)) = parent_of(&upper, &path).map_err(&fail)? else {
                continue;
            };
            let found = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(fail(e)),
            };
            match (kind, found) {
                (FileType::Directory, FileType::Directory) => {
                    let directory = open_below(&upper, &path).map_err(&fail)?;
                    if is_opaque(&directory).map_err(&fail)? {
                        let image = image(&path).map_err(&fail)?;
                        make_transparent(&directory, &image).map_err(&fail)?;
                    }
                }
                (_, FileType::Directory) => return Err(fail(Errno::ISDIR)),
                _ => self.cover(&parent, name, &path).map_err(&fail)?,
            }
        }
        Ok(())
    }

    /// Gives directories of the layer these modes where the user changed something in them: an
    /// overlay shows those of the upper directory.
    pub(crate) fn set_modes(&self, directories: &[(PathBuf, Mode)]) -> Result<(), StoreError> {
        let fail = self.fail("cannot set the mode of a directory");
        let upper = self.upper()?;
        for (path, mode) in directories {
            match open_below(&upper, path.strip_prefix("/").unwrap_or(path)) {
                Ok(directory) => fchmod(&directory, *mode).map_err(&fail)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(())
    }

    /// Moves an entry of the upper directory to its path in the other one.
    fn cover(&self, parent: &OwnedFd, name: &Path, path: &Path) -> Result<(), Errno> {
        make_directory(&self.fd, COVERED)?;
        let covered = open_directory(&self.fd, COVERED)?;
        let above = path.parent().unwrap_or(Path::new(""));
        let mut so_far = PathBuf::new();
        for component in above.components() {
            so_far.push(component);
            match mkdirat(&covered, &so_far, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        renameat_with(parent, name, &covered, path, RenameFlags::NOREPLACE)
    }
}

/// Whether there is something at a path, a mark that it was deleted excepted.
fn has(top: &OwnedFd, path: &str) -> Result<bool, Errno> {
    let Some((parent, name)) = parent_of(top, Path::new(path))? else {
        return Ok(false);
    };
    match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(!is_whiteout(&parent, name)?),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Puts something back, unless the user made something else there or removed its directory.
fn uncover(covered: &OwnedFd, upper: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let Some((parent, name)) = parent_of(upper, path)? else {
        return Ok(());
    };
    match renameat_with(covered, path, &parent, name, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A directory that hides those below it becomes one that hides their present entries one by one,
/// which is the same and leaves room for others.
fn make_transparent(directory: &OwnedFd, image: &[(PathBuf, FileType)]) -> Result<(), Errno> {
    for (name, kind) in image {
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)?;
            }
            Ok(stat)
                if *kind == FileType::Directory
                    && FileType::from_raw_mode(stat.st_mode) == FileType::Directory =>
            {
                fsetxattr(open_below(directory, name)?, OPAQUE, b"y", XattrFlags::empty())?;
            }
            found => drop(found?),
        }
    }
    fremovexattr(directory, OPAQUE)
}

fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_whiteout(parent: &OwnedFd, name: &Path) -> Result<bool, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The directory of a path, and the last component. `None` if the directory is not there.
fn parent_of<'a>(top: &OwnedFd, path: &'a Path) -> Result<Option<(OwnedFd, &'a Path)>, Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    match open_below(top, parent) {
        Ok(parent) => Ok(Some((parent, Path::new(name)))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// All paths below a directory, a directory before what is in it.
fn tree(top: &OwnedFd) -> Result<Vec<(PathBuf, FileType)>, Errno> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        for (name, kind) in list(&open_below(top, &path)?, MAX_NAMES)? {
            let below = path.join(name);
            if kind == FileType::Directory {
                pending.push(below.clone());
            }
            found.push((below, kind));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// Names in a directory, with their types. `TOOBIG` if there are more than `max`.
pub(crate) fn list(directory: &OwnedFd, max: usize) -> Result<Vec<(PathBuf, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let name = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
            if names.len() == max {
                return Err(Errno::TOOBIG);
            }
            names.push((name, entry.file_type()));
        }
    }
    Ok(names)
}

fn open_below(top: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(
        top,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

fn optional<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
