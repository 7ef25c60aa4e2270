//! Which file systems an upper directory may lie on.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, FileType, fgetxattr, fstatfs, ioctl_getflags};
use rustix::io::Errno;

use super::StoreError;
use crate::sys;

/// Refuses the others, without writing.
///
/// The kernel takes some of what is refused here all the same, and then does not keep what was
/// deleted, or fails later.
pub(super) fn require_suitable(directory: &OwnedFd, path: &Path) -> Result<(), StoreError> {
    let path = || path.to_owned();
    match unsuitable(directory) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(StoreError::Unsuitable(path(), why)),
        Err(source) => Err(StoreError::System {
            what: "cannot examine the file system",
            path: path(),
            source,
        }),
    }
}

/// Why an upper directory cannot lie in this directory, if it cannot. The requirements are those of
/// the kernel's Documentation/filesystems/overlayfs.rst, "Upper and Lower".
fn unsuitable(directory: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    // linux/magic.h
    const OVERLAYFS: u64 = 0x794c_7630;
    const TMPFS: u64 = 0x0102_1994;
    // linux/fs.h, FS_CASEFOLD_FL
    const CASEFOLD: u32 = 0x4000_0000;
    match u64::try_from(fstatfs(directory)?.f_type) {
        Ok(OVERLAYFS) => {
            return Ok(Some(
                "is on an overlay file system, which cannot hold the upper directory of another overlay",
            ));
        }
        // The kernel would take it. A reboot would not keep it.
        Ok(TMPFS) => return Ok(Some("is on a tmpfs, which a reboot of the node empties")),
        _ => {}
    }
    match fgetxattr(directory, "trusted.overlay.opaque", &mut [0_u8; 8][..]) {
        Err(Errno::NOTSUP) => return Ok(Some("its file system has no extended attributes")),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    if ioctl_getflags(directory).is_ok_and(|flags| flags.bits() & CASEFOLD != 0) {
        return Ok(Some("its file names are case-insensitive"));
    }
    if !sys::has_file_handles(directory)? {
        return Ok(Some(
            "its file system has no file handles, which the kernel needs to report whether data is in use",
        ));
    }
    let mut entries = Dir::read_from(directory)?;
    let knows_types = entries
        .next()
        .transpose()?
        .is_none_or(|entry| entry.file_type() != FileType::Unknown);
    Ok((!knows_types).then_some(
        "its file system does not report the types of directory entries (ext4 without filetype, xfs with ftype=0)",
    ))
}
