//! One kept filesystem: its directories, its lock and its record.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, OFlags, flock, fstat, syncfs};
use rustix::io::Errno;

use super::suitable::require_suitable;
use super::{StoreError, open_directory, reopen};
use crate::Root;
use crate::UserNamespace;
use crate::files;

/// Name of the record.
const RECORD: &str = "record";
/// Largest record, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// One kept filesystem.
#[derive(Debug)]
pub struct Kept {
    pub(super) key: String,
    pub(super) store: OwnedFd,
    pub(super) store_path: PathBuf,
    pub(super) fd: OwnedFd,
}

/// The lock on a kept filesystem; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct KeptLock(OwnedFd);

// === impl Kept ===

impl Kept {
    /// Its name in the store.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The store's directory, which the kernel resolves paths of mounts from.
    pub fn store(&self) -> BorrowedFd<'_> {
        self.store.as_fd()
    }

    /// Whether there is data.
    pub fn has_upper(&self) -> Result<bool, StoreError> {
        match self.upper() {
            Ok(_) => Ok(true),
            Err(StoreError::System {
                source: Errno::NOENT, ..
            }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The upper directory.
    pub fn upper(&self) -> Result<OwnedFd, StoreError> {
        open_directory(&self.fd, "upper").map_err(self.fail("cannot open the upper directory"))
    }

    /// Refuses what an upper directory cannot lie on, without writing.
    pub(crate) fn require_suitable(&self) -> Result<(), StoreError> {
        require_suitable(&self.fd, &self.store_path.join(&self.key))
    }

    /// Makes everything that was written to the kept filesystem durable.
    ///
    /// # Errors
    /// When the write fails now or, on Linux 5.8 or later, when a write failed since this was
    /// opened and the error was not yet reported to this descriptor (syncfs(2), "ERRORS").
    pub fn sync(&self) -> Result<(), StoreError> {
        // Overlays have upper and work on one mount, so what is next to them is on the same file
        // system.
        syncfs(&self.fd).map_err(self.fail("cannot sync the kept filesystem"))
    }

    /// The same kept filesystem, through the mounts of the namespace that the thread is in. A
    /// thread in a copy of the node's namespace has copies of the node's mounts, and the kernel
    /// wants layers from among those.
    pub(crate) fn in_current_namespace(&self, copy: bool) -> Result<Self, StoreError> {
        let fail = self.fail("cannot open the kept filesystem");
        let clone = |fd: &OwnedFd| {
            fd.try_clone()
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::MFILE))
        };
        let (key, store_path) = (self.key.clone(), self.store_path.clone());
        if !copy {
            return Ok(Self {
                key,
                store: clone(&self.store).map_err(&fail)?,
                store_path,
                fd: clone(&self.fd).map_err(&fail)?,
            });
        }
        let store = Root::of_this_thread()
            .map_err(&fail)?
            .open(&store_path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let fd = open_directory(&store, &key).map_err(&fail)?;
        if !is_same(&self.fd, &fd).map_err(&fail)? {
            return Err(fail(Errno::STALE));
        }
        Ok(Self {
            key,
            store,
            store_path,
            fd,
        })
    }

    /// The same kept filesystem with the owners that a user namespace sees, through a detached
    /// mount. Upper and work directory must be on the same mount.
    pub(crate) fn mapped(&self, users: &UserNamespace) -> Result<Self, Errno> {
        let store = users.mapped(self.store())?;
        let fd = open_directory(&store, &self.key)?;
        // What is mounted below the store is not on that mount.
        if !is_same(&self.fd, &fd)? {
            return Err(Errno::XDEV);
        }
        Ok(Self {
            key: self.key.clone(),
            store,
            store_path: self.store_path.clone(),
            fd,
        })
    }

    /// Locks it against every other process and thread that would.
    pub fn lock(&self) -> Result<KeptLock, StoreError> {
        let fd = reopen(&self.fd, OFlags::RDONLY).map_err(self.fail("cannot lock the kept filesystem"))?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(KeptLock(fd)),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Locked),
            Err(e) => Err(self.fail("cannot lock the kept filesystem")(e)),
        }
    }

    /// What was last recorded.
    pub fn record(&self) -> Result<Option<Vec<u8>>, StoreError> {
        files::read(&self.fd, RECORD, MAX_RECORD).map_err(self.fail("cannot read the record"))
    }

    /// Whether what is here was recorded here. A copy that lost its extended attributes (of which
    /// an overlay has those that say what was deleted) was not, nor was another key's.
    pub fn has_genuine_record(&self) -> Result<bool, StoreError> {
        files::is_sealed(&self.fd, RECORD, &self.key).map_err(self.fail("cannot read the record"))
    }

    /// Replaces the record, atomically and durably.
    pub fn set_record(&self, content: &[u8]) -> Result<(), StoreError> {
        files::replace(&self.fd, RECORD, content, Some(&self.key))
            .map_err(self.fail("cannot write the record"))
    }

    pub(crate) fn fail(&self, what: &'static str) -> impl Fn(Errno) -> StoreError {
        let path = PathBuf::from(&self.key);
        move |source| StoreError::System {
            what,
            path: path.clone(),
            source,
        }
    }
}

/// Whether both are the same directory.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for KeptLock {
    fn drop(&mut self) {
        // Closing the descriptor would do, were there no copies of it in children about to exec.
        if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
            tracing::debug!(%error, "unlock");
        }
    }
}
