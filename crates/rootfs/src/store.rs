/*!
The directories of kept filesystems on the node.

```text
PREFIX/            0700 root: only root gets further
  .id              tells this directory from another one at its path
  KEY/             0700 root
    upper/         mode and owner of the image's root
    work/          the kernel's
    probe/         for the question whether `upper` is in use
    runtime/       what the container runtime did to the container's root, at the last start
    covered/       what that covers of `upper`
    record         what the caller wants to remember
```

Everything is reached by descriptors from the prefix on.
*/

mod clear;
mod kept;
mod probe;
pub(crate) mod runtime;
mod suitable;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Dir, FlockOperation, Mode, OFlags, ResolveFlags, Stat, fchmod, fchown, flock, fstat, fsync, mkdirat,
    openat2, renameat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use self::suitable::require_suitable;
use crate::Root;
use crate::root::RootError;
use crate::{files, remove};

pub use self::kept::{Kept, KeptLock};
pub(crate) use self::runtime::list;

/// Name of the file with the store's identifier. No key has a dot.
const IDENTITY: &str = ".id";
/// Largest identifier, in bytes.
const MAX_IDENTITY: u64 = 64;

/// A prefix: the directory that holds kept filesystems.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    fd: OwnedFd,
}

/// Something about a store that does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The prefix is open to others.
    #[error(
        "{0}: must belong to root and be writable only by root, because every user who can write there owns the data"
    )]
    Unsafe(PathBuf),
    /// A key that is not a plain name.
    #[error("{0:?} is not a valid name for a kept filesystem")]
    Key(String),
    /// The path of the prefix.
    #[error("cannot open the directory for kept filesystems")]
    Prefix(#[from] RootError),
    /// The file system is not suitable for the data.
    #[error("{0}: {1}; choose a directory on ext4, xfs or btrfs for kept filesystems")]
    Unsuitable(PathBuf, &'static str),
    /// Another process works on it.
    #[error("another process is working on the kept filesystem")]
    Locked,
    /// What failed, where and how.
    #[error("{what} ({path})", path = path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

// === impl Store ===

impl Store {
    /// Opens a prefix. `None` if it does not exist.
    pub fn open(host: &Root, path: &Path) -> Result<Option<Self>, StoreError> {
        match host.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Self::checked(path, fd).map(Some),
            Err(e) if matches!(e.problem, crate::root::Problem::System(Errno::NOENT)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens a prefix and makes it if it is missing, with mode 0700; directories above it get 0755.
    /// What was made is durable when this returns.
    pub fn create(host: &Root, path: &Path) -> Result<Self, StoreError> {
        if let Some(above) = path.parent() {
            host.create_durable_directory(above, Mode::from_raw_mode(0o755))?;
        }
        let made = host.create_durable_directory(path, Mode::RWXU)?;
        let fd =
            reopen(&made, OFlags::RDONLY).map_err(|e| Self::error(path, "cannot open the directory", e))?;
        fsync(&fd).map_err(|e| Self::error(path, "cannot sync the directory", e))?;
        Self::checked(path, fd)
    }

    /// Refuses a prefix whose file system cannot hold kept filesystems, without writing.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] says why; others say what could not be examined.
    pub fn require_suitable(&self) -> Result<(), StoreError> {
        require_suitable(&self.fd, &self.path)
    }

    /// The identifier that distinguishes this store from other directories at its path, such as the
    /// empty mount point of its disk. A store has one from when something is first kept there.
    /// `None` before, and for stores of earlier versions.
    pub fn identity(&self) -> Result<Option<String>, StoreError> {
        let content = files::read(&self.fd, IDENTITY, MAX_IDENTITY)
            .map_err(|e| Self::error(&self.path, "cannot read .id", e))?;
        Ok(content.and_then(|content| String::from_utf8(content).ok()))
    }

    /// Gives it an identifier, once.
    fn identify(&self) -> Result<(), StoreError> {
        let fail = |what| move |e| Self::error(&self.path, what, e);
        let lock = reopen(&self.fd, OFlags::RDONLY).map_err(fail("cannot lock the directory"))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(fail("cannot lock the directory"))?;
        if self.identity()?.is_some() {
            return Ok(());
        }
        let mut random = [0_u8; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(fail("cannot make an identifier"))?;
        let identity = format!("{:032x}", u128::from_be_bytes(random));
        files::replace(&self.fd, IDENTITY, identity.as_bytes(), None).map_err(fail("cannot write .id"))
    }

    /// The keys of all that is kept here, sorted.
    pub fn keys(&self) -> Result<Vec<String>, StoreError> {
        let fail = |e| Self::error(&self.path, "cannot list the directory", e);
        let mut keys = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy();
            if check_key(&name).is_ok() {
                keys.push(name.into_owned());
            }
        }
        keys.sort();
        Ok(keys)
    }

    fn checked(path: &Path, fd: OwnedFd) -> Result<Self, StoreError> {
        let stat = fstat(&fd).map_err(|e| Self::error(path, "cannot examine the directory", e))?;
        if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
            return Err(StoreError::Unsafe(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            fd,
        })
    }

    /// Opens a kept filesystem. `None` if nothing is there.
    pub fn get(&self, key: &str) -> Result<Option<Kept>, StoreError> {
        check_key(key)?;
        match open_directory(&self.fd, key) {
            Ok(fd) => Ok(Some(self.kept(key, fd)?)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed(key, "cannot open the kept filesystem", e)),
        }
    }

    /// Opens a kept filesystem and makes what is missing of it. The upper directory, when it is
    /// made, gets mode and owner of `root`, which the merged root then has. What was made is
    /// durable when this returns.
    pub fn create_key(&self, key: &str, root: &Stat) -> Result<Kept, StoreError> {
        check_key(key)?;
        let fail = |what| move |e| self.failed(key, what, e);
        self.require_suitable()?;
        make_directory(&self.fd, key).map_err(fail("cannot make the directory of the kept filesystem"))?;
        let fd = open_directory(&self.fd, key).map_err(fail("cannot open the kept filesystem"))?;
        let kept = self.kept(key, fd)?;
        let is_new = !kept.has_upper()?;
        match self.identify() {
            // Of a store from before stores had one. On a full disk, what is kept goes on all the
            // same.
            Err(error) if !is_new => {
                tracing::debug!(%error, "no identifier for the directory of kept filesystems");
            }
            identified => identified?,
        }
        if is_new {
            // Complete or not there: it gets its name when it has its owner and mode.
            make_directory(&kept.fd, "new").map_err(fail("cannot make the upper directory"))?;
            let new = open_directory(&kept.fd, "new").map_err(fail("cannot open the upper directory"))?;
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(root.st_uid),
                rustix::fs::Gid::from_raw(root.st_gid),
            );
            fchown(&new, Some(uid), Some(gid))
                .map_err(fail("cannot set the owner of the upper directory"))?;
            let mode = Mode::from_raw_mode(root.st_mode & 0o7777);
            fchmod(&new, mode).map_err(fail("cannot set the mode of the upper directory"))?;
            fsync(&new).map_err(fail("cannot sync the upper directory"))?;
            renameat(&kept.fd, "new", &kept.fd, "upper")
                .map_err(fail("cannot rename the upper directory"))?;
        }
        make_directory(&kept.fd, "work").map_err(fail("cannot make the work directory"))?;
        fsync(&kept.fd).map_err(fail("cannot sync the kept filesystem"))?;
        fsync(&self.fd).map_err(fail("cannot sync the directory of kept filesystems"))?;
        Ok(kept)
    }

    /// Deletes a kept filesystem. Does nothing where nothing is. Follows no link and crosses no
    /// mount.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        let fail = |what| move |e| self.failed(key, what, e);
        remove::tree(self.fd.as_fd(), key).map_err(fail("cannot delete the kept filesystem"))?;
        fsync(&self.fd).map_err(fail("cannot sync the directory of kept filesystems"))
    }

    fn kept(&self, key: &str, fd: OwnedFd) -> Result<Kept, StoreError> {
        let store = self.fd.try_clone().map_err(|e| {
            let errno = Errno::from_io_error(&e).unwrap_or(Errno::MFILE);
            self.failed(key, "cannot open the kept filesystem", errno)
        })?;
        Ok(Kept {
            key: key.to_owned(),
            store,
            store_path: self.path.clone(),
            fd,
        })
    }

    fn failed(&self, key: &str, what: &'static str, source: Errno) -> StoreError {
        StoreError::System {
            what,
            path: self.path.join(key),
            source,
        }
    }

    fn error(path: &Path, what: &'static str, source: Errno) -> StoreError {
        StoreError::System {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if key.is_empty() || key.len() > 128 || !key.chars().all(plain) {
        return Err(StoreError::Key(key.to_owned()));
    }
    Ok(())
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

fn open_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(
        parent,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

/// A second open file of the same directory.
fn reopen(fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        fd,
        ".",
        flags | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
