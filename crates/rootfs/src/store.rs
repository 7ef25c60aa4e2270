/*!
Where kept filesystems lie on the node.

```text
PREFIX/            0700 root: nobody but root gets further
  .id              tells this directory from another one at its path
  KEY/             0700 root
    upper/         mode and owner of the image's root
    work/          the kernel's
    probe/         for the question whether `upper` is in use
    record         what the caller wants to remember
```

Everything is reached by descriptors from the prefix on.
*/

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat, fallocate,
    fchmod, fchown, fgetxattr, flock, fstat, fstatfs, fsync, ioctl_getflags, mkdirat, openat, openat2,
    renameat, statat, syncfs,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Root;
use crate::root::RootError;
use crate::{files, remove, sys};

/// Name of the record.
const RECORD: &str = "record";
/// Name of the directory that the kernel makes in a work directory for `index=on` (fs/overlayfs/super.c,
/// `OVL_INDEXDIR_NAME`).
const INDEX: &str = "index";
/// Largest record, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// A file that only takes space, and how much, in bytes: see [`Kept::take_ballast`].
const BALLAST: &str = "ballast";
const BALLAST_BYTES: u64 = 64 << 10;
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

/// One kept filesystem.
#[derive(Debug)]
pub struct Kept {
    key: String,
    store: OwnedFd,
    store_path: PathBuf,
    fd: OwnedFd,
}

/// The lock on a kept filesystem; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct KeptLock(OwnedFd);

/// Something about a store that does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The prefix is open to others.
    #[error(
        "{0}: must belong to root and be writable by root alone, as whoever can write there owns the data"
    )]
    Unsafe(PathBuf),
    /// A key that is not a plain name.
    #[error("{0:?} is not a name for a kept filesystem")]
    Key(String),
    /// The path of the prefix.
    #[error("cannot open the directory for kept filesystems")]
    Prefix(#[from] RootError),
    /// What the data lies on is no file system for it.
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

    /// Opens a prefix and makes it if it is missing, with mode 0700; directories above it get 0755. What was made
    /// is durable when this returns.
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

    /// The identifier that distinguishes this store from other directories at its path, such as the empty mount point of
    /// its disk. A store has one from when something is first kept there. `None` before, and for stores of earlier versions.
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

    /// Opens a kept filesystem and makes what is missing of it. The upper directory, when it is made, gets mode and
    /// owner of `root`, which the merged root then has. What was made is durable when this returns.
    pub fn create_key(&self, key: &str, root: &Stat) -> Result<Kept, StoreError> {
        check_key(key)?;
        let fail = |what| move |e| self.failed(key, what, e);
        require_suitable(&self.fd, &self.path)?;
        make_directory(&self.fd, key).map_err(fail("cannot make the directory of the kept filesystem"))?;
        let fd = open_directory(&self.fd, key).map_err(fail("cannot open the kept filesystem"))?;
        let kept = self.kept(key, fd)?;
        let is_new = !kept.has_upper()?;
        match self.identify() {
            // Of a store from before stores had one. On a full disk, what is kept goes on all the same.
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
            fchown(&new, Some(uid), Some(gid)).map_err(fail("cannot give the upper directory its owner"))?;
            let mode = Mode::from_raw_mode(root.st_mode & 0o7777);
            fchmod(&new, mode).map_err(fail("cannot give the upper directory its mode"))?;
            fsync(&new).map_err(fail("cannot sync the upper directory"))?;
            renameat(&kept.fd, "new", &kept.fd, "upper").map_err(fail("cannot name the upper directory"))?;
        }
        make_directory(&kept.fd, "work").map_err(fail("cannot make the work directory"))?;
        fsync(&kept.fd).map_err(fail("cannot sync the kept filesystem"))?;
        fsync(&self.fd).map_err(fail("cannot sync the directory of kept filesystems"))?;
        Ok(kept)
    }

    /// Deletes a kept filesystem. Does nothing where nothing is. Follows no link and crosses no mount.
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

// === impl Kept ===

impl Kept {
    /// Its name in the store.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The store's directory; paths of mounts are told to the kernel from there.
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
    /// When the disk does not take it now or, on Linux 5.8 or later, did not take something since this was opened: an
    /// error that another descriptor was told of before that is not told again (syncfs(2), "ERRORS").
    pub fn sync(&self) -> Result<(), StoreError> {
        // Overlays have upper and work on one mount, so what is next to them is on the same file system.
        syncfs(&self.fd).map_err(self.fail("cannot sync the kept filesystem"))
    }

    /// The same kept filesystem, through the mounts of the namespace that the thread is in. A thread in a copy of
    /// the node's namespace has copies of the node's mounts, and the kernel wants layers from among those.
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
        let (there, here) = (fstat(&self.fd).map_err(&fail)?, fstat(&fd).map_err(&fail)?);
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Err(fail(Errno::STALE));
        }
        Ok(Self {
            key,
            store,
            store_path,
            fd,
        })
    }

    /// Directories for a probe: `probe/upper` and `probe/work`. The latter has no index: see [`Kept::has_index`].
    pub(crate) fn make_probe(&self) -> Result<(), StoreError> {
        let fail = self.fail("cannot make the probe directory");
        make_directory(&self.fd, "probe").map_err(&fail)?;
        let probe = open_directory(&self.fd, "probe").map_err(&fail)?;
        make_directory(&probe, "upper").map_err(&fail)?;
        make_directory(&probe, "work").map_err(&fail)?;
        let work = open_directory(&probe, "work").map_err(&fail)?;
        remove::tree(work.as_fd(), INDEX).map_err(fail)
    }

    /// Whether an overlay with an index was made on the directories of a probe since [`Kept::make_probe`].
    pub(crate) fn has_index(&self) -> Result<bool, StoreError> {
        let path = format!("probe/work/{INDEX}");
        match open_directory(&self.fd, &path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.fail("cannot examine the probe directory")(e)),
        }
    }

    /// Takes some space for a later probe, as far as there is any: a start on a full disk is how its user tidies up, and
    /// needs a proven answer.
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
            tracing::debug!(%error, "no space for a later probe");
        }
    }

    /// Gives that space to the next probe. A journaling file system hands blocks out again when the transaction that freed
    /// them has ended, which fsync(2) waits for.
    pub(crate) fn drop_ballast(&self) -> Result<(), StoreError> {
        let drop = || {
            let probe = open_directory(&self.fd, "probe")?;
            files::remove(&probe, BALLAST)?;
            fsync(&probe)
        };
        drop().map_err(self.fail("cannot give up the space for a probe"))
    }

    /// Removes them.
    pub(crate) fn remove_probe(&self) -> Result<(), StoreError> {
        remove::tree(self.fd.as_fd(), "probe").map_err(self.fail("cannot delete the probe directory"))
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

    /// Whether what is here was recorded here. A copy that lost its extended attributes (of which an overlay has those
    /// that say what was deleted) was not, nor was another key's.
    pub fn has_genuine_record(&self) -> Result<bool, StoreError> {
        files::is_sealed(&self.fd, RECORD, &self.key).map_err(self.fail("cannot read the record"))
    }

    /// Replaces the record, atomically and durably.
    pub fn set_record(&self, content: &[u8]) -> Result<(), StoreError> {
        files::replace(&self.fd, RECORD, content, Some(&self.key))
            .map_err(self.fail("cannot write the record"))
    }

    fn fail(&self, what: &'static str) -> impl Fn(Errno) -> StoreError {
        let path = PathBuf::from(&self.key);
        move |source| StoreError::System {
            what,
            path: path.clone(),
            source,
        }
    }
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

/// The kernel takes some of what is refused here all the same, and then does not keep what was deleted, or fails later.
fn require_suitable(directory: &OwnedFd, path: &Path) -> Result<(), StoreError> {
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

/// Why an upper directory cannot lie in this directory, if it cannot. The requirements are those of the kernel's
/// Documentation/filesystems/overlayfs.rst, "Upper and Lower".
fn unsuitable(directory: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    // linux/magic.h
    const OVERLAYFS: u64 = 0x794c_7630;
    const TMPFS: u64 = 0x0102_1994;
    // linux/fs.h, FS_CASEFOLD_FL
    const CASEFOLD: u32 = 0x4000_0000;
    match u64::try_from(fstatfs(directory)?.f_type) {
        Ok(OVERLAYFS) => {
            return Ok(Some(
                "is on an overlay file system, which can be no part of another one's upper directory",
            ));
        }
        // The kernel would take it. A reboot would not keep it.
        Ok(TMPFS) => return Ok(Some("is on a tmpfs, which a reboot of the node empties")),
        _ => {}
    }
    match fgetxattr(directory, "trusted.overlay.opaque", &mut [0_u8; 8][..]) {
        Err(Errno::NOTSUP) => return Ok(Some("its file system keeps no extended attributes")),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    if ioctl_getflags(directory).is_ok_and(|flags| flags.bits() & CASEFOLD != 0) {
        return Ok(Some("its names are the same in upper and lower case"));
    }
    if !sys::has_file_handles(directory)? {
        return Ok(Some(
            "its file system has no file handles, without which the kernel does not tell whether data is in use",
        ));
    }
    let mut entries = Dir::read_from(directory)?;
    let knows_types = entries
        .next()
        .transpose()?
        .is_none_or(|entry| entry.file_type() != FileType::Unknown);
    Ok((!knows_types).then_some(
        "its file system does not say what its entries are (ext4 without filetype, xfs with ftype=0)",
    ))
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
