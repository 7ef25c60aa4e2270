//! The directories of a kept filesystem that [`crate::holders::probe`] asks the kernel with.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, fsync, openat, statat};
use rustix::io::Errno;

use super::kept::Kept;
use super::{StoreError, make_directory, open_directory};
use crate::{files, remove};

/// Name of the directory that the kernel makes in a work directory for `index=on`
/// (fs/overlayfs/super.c, `OVL_INDEXDIR_NAME`).
const INDEX: &str = "index";
/// A file that only takes space, and how much, in bytes: see [`Kept::take_ballast`].
const BALLAST: &str = "ballast";
const BALLAST_BYTES: u64 = 64 << 10;

// === impl Kept ===

impl Kept {
    /// Directories for a probe: `probe/upper` and `probe/work`. The latter has no index: see
    /// [`Kept::has_index`].
    pub(crate) fn make_probe(&self) -> Result<(), StoreError> {
        let fail = self.fail("cannot make the probe directory");
        make_directory(&self.fd, "probe").map_err(&fail)?;
        let probe = open_directory(&self.fd, "probe").map_err(&fail)?;
        make_directory(&probe, "upper").map_err(&fail)?;
        make_directory(&probe, "work").map_err(&fail)?;
        let work = open_directory(&probe, "work").map_err(&fail)?;
        remove::tree(work.as_fd(), INDEX).map_err(fail)
    }

    /// Whether an overlay with an index was made on the directories of a probe since
    /// [`Kept::make_probe`].
    pub(crate) fn has_index(&self) -> Result<bool, StoreError> {
        let path = format!("probe/work/{INDEX}");
        match open_directory(&self.fd, &path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.fail("cannot examine the probe directory")(e)),
        }
    }

    /// Takes some space for a later probe, as far as there is any: a start on a full disk is how
    /// its user tidies up, and needs a proven answer.
    pub(crate) fn take_ballast(&self) {
        let take = || {
            let probe = open_directory(&self.fd, "probe")?;
            match statat(&probe, BALLAST, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                found => return found.map(drop),
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat(&probe, BALLAST, flags, Mode::RUSR | Mode::WUSR)?;
            fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES)
        };
        if let Err(error) = take() {
            tracing::debug!(%error, "no space to reserve for the next probe");
        }
    }

    /// Gives that space to the next probe. A journaling file system hands blocks out again when the
    /// transaction that freed them has ended, which fsync(2) waits for.
    pub(crate) fn drop_ballast(&self) -> Result<(), StoreError> {
        let drop = || {
            let probe = open_directory(&self.fd, "probe")?;
            files::remove(&probe, BALLAST)?;
            fsync(&probe)
        };
        drop().map_err(self.fail("cannot free the space reserved for the probe"))
    }

    /// Removes them.
    pub(crate) fn remove_probe(&self) -> Result<(), StoreError> {
        remove::tree(self.fd.as_fd(), "probe").map_err(self.fail("cannot delete the probe directory"))
    }
}
