/*!
What a hook that changes modes would have done to files of the image and the user: it ran on the
wrapper's root, which has none of them, and skips what is missing (`nvidia-cdi-hook chmod`).

Files get their mode in the runtime layer, so it is of this start. An overlay shows a directory with
the attributes of its topmost layer, so one that the user changed gets it where the user has it.
*/

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, chmodat, fstat, readlinkat};
use rustix::io::Errno;

use super::{RuntimeLayerError, at};
use crate::process::Proc;
use crate::root::{Problem, Root, RootError};

/// Largest file that is copied into the layer, in bytes. Hooks change modes of directories and
/// small programs.
pub(super) const MAX_COPIED: u64 = 4 << 20;
/// The bits that NVIDIA's hook sets. It clears the others.
const BITS: u32 = 0o777;

/// What hooks of the container runtime could not do, as the image's files were not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeat<'a> {
    /// Major version of the node's GPU driver, if a hook of the runtime prefers newer libraries of
    /// CUDA's forward compatibility in the image to those of the driver.
    pub cuda_driver: Option<u32>,
    /// Modes that hooks set.
    pub modes: &'a [HookMode],
}

/// A mode that a hook sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookMode {
    /// The path in the container.
    pub path: PathBuf,
    /// The mode.
    pub mode: u32,
}

/// Sets the modes of what is there, and returns the directories among that, without links in their
/// paths. `moved` are the paths of the container's mounts, which the hook saw.
pub(super) fn repeat(
    proc: &Proc,
    root: &Root,
    modes: &[HookMode],
    moved: &[PathBuf],
) -> Result<Vec<(PathBuf, Mode)>, RuntimeLayerError> {
    let is_mounted = |path: &Path| moved.iter().any(|mount| path.starts_with(mount));
    let mut directories = Vec::new();
    for wanted in modes.iter().filter(|wanted| !is_mounted(&wanted.path)) {
        let failed = at(wanted.path.strip_prefix("/").unwrap_or(&wanted.path));
        let Some((there, opened)) = deepest(root, &wanted.path)? else {
            continue;
        };
        let link = format!("thread-self/fd/{}", opened.as_raw_fd());
        let path = readlinkat(proc, link.as_str(), Vec::new()).map_err(&failed)?;
        let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
        if is_mounted(&path) {
            return Err(RuntimeLayerError::ModeInMount(wanted.clone(), path));
        }
        if there != wanted.path {
            continue;
        }
        let stat = fstat(&opened).map_err(&failed)?;
        let mode = Mode::from_raw_mode(wanted.mode & BITS);
        if Mode::from_raw_mode(stat.st_mode) == mode {
            continue;
        }
        let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if kind == FileType::RegularFile && size > MAX_COPIED {
            return Err(RuntimeLayerError::ModeOfLarge(wanted.clone()));
        }
        chmodat(proc, link, mode, AtFlags::empty()).map_err(&failed)?;
        if kind == FileType::Directory {
            directories.push((path, mode));
        }
    }
    Ok(directories)
}

/// The path, or that of the directory on its way that is there, opened.
fn deepest<'a>(root: &Root, path: &'a Path) -> Result<Option<(&'a Path, OwnedFd)>, RuntimeLayerError> {
    for path in path.ancestors() {
        match root.open(path, OFlags::PATH) {
            Ok(opened) => return Ok(Some((path, opened))),
            Err(RootError {
                problem: Problem::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP),
                ..
            }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
