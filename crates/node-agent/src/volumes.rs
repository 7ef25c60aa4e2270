/*!
The volumes that are published on this node: their directories, sockets and
records, all below `<kubelet-dir>/plugins/<driver>`.

```text
csi.sock              the kubelet's way in
exec-wrapper          the program
volumes/ID/
  volume.json         what is published (see `journal`)
  mount/              what the pod sees, mounted read-only
    exec-wrapper      a copy of the program
    agent.sock
```

A pod that may mount can make its volume writable again, so nothing in `mount` is
shared with another pod, nothing there is trusted, and files get their content and
mode beside it before they are moved in.
*/

pub(crate) mod record;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use futures::future::{BoxFuture, Shared};
use rootfs::{Kept, files};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, chmodat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use crate::filesystem::writeback::Outcome;
use crate::rate_limit::Paces;
use crate::volumes::record::Record;

use exec_wrapper::protocol::{SOCKET, WRAPPER};

/// Names while they are made.
const WRAPPER_NEW: &str = "exec-wrapper.new";
const SOCKET_NEW: &str = "agent.sock.new";
/// Mode of the program.
const PROGRAM_MODE: u32 = 0o555;

/// All volumes of this node.
#[derive(Debug)]
pub(crate) struct Volumes {
    base: OwnedFd,
    directory: OwnedFd,
    published: Mutex<HashMap<String, Arc<Volume>>>,
    busy: Mutex<HashSet<String>>,
}

/// One published volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) record: Record,
    /// Ends when the volume is unpublished.
    pub(crate) unpublished: CancellationToken,
    /// Of a consumer that was moved: open since then, for errors of the disk (see `writeback`).
    kept: OnceLock<Arc<Kept>>,
    /// Of a consumer that has ended: ends when what it wrote is on the disk, or will never be.
    settled: OnceLock<Settled>,
    served: AtomicBool,
    /// Held while one of its processes is looked at: whatever table of mounts they made, it costs its pod alone.
    pub(crate) looking: Arc<AsyncMutex<()>>,
    /// How fast its processes may ask.
    pub(crate) paces: Paces,
}

/// Work that goes on also when no caller waits for it, and its result.
pub(crate) type Settled = Shared<BoxFuture<'static, Option<Outcome>>>;

/// The right to change a volume: one call at a time, as CSI wants it.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    volumes: &'a Volumes,
    id: String,
}

// === impl Volumes ===

impl Volumes {
    /// `base` is the driver's directory.
    pub(crate) fn open(base: OwnedFd) -> Result<Self> {
        let directory =
            make_directory(&base, "volumes", Mode::RWXU).context("make the directory of volumes")?;
        Ok(Self {
            base,
            directory,
            published: Mutex::default(),
            busy: Mutex::default(),
        })
    }

    /// Copies the wrapper from the agent's image to the node.
    pub(crate) fn install_wrapper(&self, image: &Path) -> Result<()> {
        let mut source = File::open(image).with_context(|| format!("open {}", image.display()))?;
        copy_program(&mut source, &self.base, Durable::Yes)?;
        renameat(&self.base, WRAPPER_NEW, &self.base, WRAPPER).context("name the wrapper")
    }

    /// The volumes on disk, as (id, record). Without a record nothing was mounted yet, or is any more. One whose record
    /// is not understood is left out: it stays as it is until it is unpublished.
    pub(crate) fn recorded(&self) -> Result<Vec<(String, Result<Option<Record>>)>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.directory).context("list volumes")? {
            let entry = entry.context("list volumes")?;
            let Ok(id) = entry.file_name().to_str() else {
                continue;
            };
            if !is_id(id) {
                continue;
            }
            let read = || {
                let directory = open_directory(&self.directory, id).context("open the volume's directory")?;
                let record = Record::read(&directory)?;
                let understood = record.is_some() || !Record::exists(&directory)?;
                anyhow::Ok((record, understood))
            };
            match read() {
                Ok((_, false)) => tracing::error!(
                    volume = id,
                    "the record is not understood, the volume is not served"
                ),
                Ok((record, true)) => found.push((id.to_owned(), Ok(record))),
                Err(error) => found.push((id.to_owned(), Err(error))),
            }
        }
        Ok(found)
    }

    /// Claims a volume for a change. `None` while somebody else has it.
    pub(crate) fn claim(&self, id: &str) -> Option<Claim<'_>> {
        lock(&self.busy).insert(id.to_owned()).then(|| Claim {
            volumes: self,
            id: id.to_owned(),
        })
    }

    /// The published volume of this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Volume>> {
        lock(&self.published).get(id).cloned()
    }

    /// All published volumes.
    pub(crate) fn all(&self) -> Vec<Arc<Volume>> {
        lock(&self.published).values().cloned().collect()
    }

    /// The published volumes of an instance.
    pub(crate) fn of_instance(&self, uid: &str) -> Vec<Arc<Volume>> {
        lock(&self.published)
            .values()
            .filter(|volume| volume.record.instance.uid == uid)
            .cloned()
            .collect()
    }
}

// === impl Volume ===

impl Volume {
    /// Holds the kept filesystem open. The first one is held: a container that restarts in its pod goes on with it.
    pub(crate) fn listen_for_errors(&self, kept: Kept) {
        self.kept.get_or_init(|| Arc::new(kept));
    }

    /// The kept filesystem, if it is held open.
    pub(crate) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.get().cloned()
    }

    /// Begins the work at the first call, and waits for it.
    pub(crate) fn settled(&self, begin: impl FnOnce() -> Settled) -> Settled {
        self.settled.get_or_init(begin).clone()
    }

    /// From now on somebody listens on its socket.
    pub(crate) fn set_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Whether somebody listens on its socket.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }
}

// === impl Claim ===

impl Claim<'_> {
    /// Makes the volume's directory with record, wrapper and a socket that listens. May be repeated: the record on
    /// disk must then be the same.
    pub(crate) fn create(&self, record: &Record) -> Result<(OwnedFd, UnixListener)> {
        let volume = make_directory(&self.volumes.directory, &self.id, Mode::RWXU)
            .context("make the volume's directory")?;
        record.write(&volume)?;
        let readable = Mode::from_raw_mode(0o755);
        let mount = make_directory(&volume, "mount", readable).context("make the volume's directory")?;
        rustix::fs::fchmod(&mount, readable).context("make the volume's directory readable")?;
        let source = files::open(&self.volumes.base, WRAPPER).context("open the wrapper")?;
        let mut source = File::from(source.context("the wrapper is not there")?);
        // One that is there may be half of one, after a power cut, or an older one. If it is not, a full disk is no reason
        // not to serve the volume.
        if !has_program(&mut source, &mount).unwrap_or(false) {
            source.rewind().context("read the wrapper")?;
            copy_program(&mut source, &volume, Durable::No)?;
            renameat(&volume, WRAPPER_NEW, &mount, WRAPPER).context("put the wrapper into the volume")?;
        }
        let listener = listen(&volume, &mount)?;
        Ok((mount, listener))
    }

    /// Makes the volume known.
    pub(crate) fn publish(&self, record: Record) -> Arc<Volume> {
        let volume = Arc::new(Volume {
            id: self.id.clone(),
            record,
            unpublished: CancellationToken::new(),
            kept: OnceLock::new(),
            settled: OnceLock::new(),
            served: AtomicBool::new(false),
            looking: Arc::default(),
            paces: Paces::default(),
        });
        if let Some(before) = lock(&self.volumes.published).insert(self.id.clone(), Arc::clone(&volume)) {
            before.unpublished.cancel();
        }
        volume
    }

    /// The record on disk.
    pub(crate) fn recorded(&self) -> Result<Option<Record>> {
        match open_directory(&self.volumes.directory, &self.id) {
            Ok(volume) => Record::read(&volume),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).context("open the volume's directory"),
        }
    }

    /// Ends the volume and removes its directory.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(volume) = lock(&self.volumes.published).remove(&self.id) {
            volume.unpublished.cancel();
        }
        let volume = match open_directory(&self.volumes.directory, &self.id) {
            Ok(volume) => volume,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e).context("open the volume's directory"),
        };
        // With whatever the pod put there, if it could: that must not keep the volume from going.
        rootfs::remove::tree(volume.as_fd(), "mount").context("remove what the pod sees")?;
        for name in [WRAPPER_NEW, SOCKET_NEW] {
            remove_file(&volume, name)?;
        }
        Record::remove(&volume)?;
        unlinkat(&self.volumes.directory, self.id.as_str(), AtFlags::REMOVEDIR)
            .context("remove the volume's directory")
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.volumes.busy).remove(&self.id);
    }
}

/// Whether a volume id can be a file name. The kubelet's are `csi-` and a hexadecimal hash.
pub(crate) fn is_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !id.is_empty() && id.len() <= 128 && id.chars().all(plain)
}

/// Whether a file must be whole after a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// Whether the program is in `directory` as it should be.
fn has_program(source: &mut File, directory: &OwnedFd) -> Result<bool> {
    let Some(there) = files::open(directory, WRAPPER)?.map(File::from) else {
        return Ok(false);
    };
    let (wanted, found) = (source.metadata()?, there.metadata()?);
    if found.mode() & 0o7777 != PROGRAM_MODE || found.len() != wanted.len() {
        return Ok(false);
    }
    let (mut wanted, mut found) = (BufReader::new(source), BufReader::new(there));
    loop {
        let (left, right) = (wanted.fill_buf()?, found.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        wanted.consume(length);
        found.consume(length);
    }
}

/// Makes [`WRAPPER_NEW`] in `directory`, a copy of the program.
fn copy_program(source: &mut File, directory: &OwnedFd, durable: Durable) -> Result<()> {
    remove_file(directory, WRAPPER_NEW)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(PROGRAM_MODE);
    let mut target = File::from(openat(directory, WRAPPER_NEW, flags, mode).context("make the wrapper")?);
    io::copy(source, &mut target).context("copy the wrapper")?;
    rustix::fs::fchmod(&target, mode).context("make the wrapper executable")?;
    if durable == Durable::Yes {
        target.sync_all().context("sync the wrapper")?;
    }
    Ok(())
}

/// Listens on the socket of a volume. It gets its name when it listens and everybody may connect: whoever sees it
/// can use it.
fn listen(volume: &OwnedFd, mount: &OwnedFd) -> Result<UnixListener> {
    remove_file(volume, SOCKET_NEW)?;
    // The path of the directory may be longer than a socket's address can be.
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET_NEW}", volume.as_raw_fd()))
        .context("bind the socket")?;
    // No pod sees it yet, so nobody can have put a link to another file in its place.
    chmodat(volume, SOCKET_NEW, Mode::from_raw_mode(0o666), AtFlags::empty())
        .context("open the socket to the pod")?;
    renameat(volume, SOCKET_NEW, mount, SOCKET).context("name the socket")?;
    listener.set_nonblocking(true).context("set up the socket")?;
    Ok(listener)
}

fn make_directory(parent: &OwnedFd, name: &str, mode: Mode) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(e) => Err(e),
    }
}

fn open_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn remove_file(directory: &OwnedFd, name: &str) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("remove {name}")),
    }
}

/// A lock whose holders never panic half-way: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod killed;
#[cfg(test)]
mod tests;
