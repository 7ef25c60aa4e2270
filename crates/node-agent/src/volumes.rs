/*!
The volumes that are published on this node: their directories, sockets and records, all below
`<kubelet-dir>/plugins/<driver>`.

```text
csi.sock              the kubelet's way in
exec-wrapper          the program
volumes/ID/
  volume.json         what is published (see `record`)
  mount/              what the pod sees, mounted read-only
    exec-wrapper      a copy of the program
    agent.sock
    notice            a line for the log of a container that cannot connect
```

A pod that may mount can make its volume writable again, so nothing in `mount` is shared with
another pod, nothing there is trusted, and files get their content and mode beside it before they
are moved in.
*/

mod guard;
pub(crate) mod left_over;
mod limits;
mod record;
mod users;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use exec_wrapper::protocol::WRAPPER;
use futures::future::{BoxFuture, Shared};
use rootfs::Kept;
use rootfs::user_namespace::IdMaps;
use rustix::fs::{Dir, Mode, OFlags, mkdirat, openat, renameat};
use rustix::io::Errno;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio_util::sync::CancellationToken;

use self::guard::{Durable, WRAPPER_NEW, copy_program};
use self::limits::PeerLimits;
use crate::instance::WritebackOutcome;

pub(crate) use self::guard::VolumeGuard;
pub(crate) use self::record::{Role, VolumeRecord};
pub(crate) use self::users::Users;

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
    pub(crate) record: VolumeRecord,
    /// Ends when the volume is unpublished.
    pub(crate) unpublished: CancellationToken,
    /// The kept filesystem of a consumer that was moved: open since then, for write errors (see
    /// `filesystem::writeback`).
    kept: OnceLock<Arc<Kept>>,
    /// The sync after the consumer has ended.
    writeback: OnceLock<Writeback>,
    served: AtomicBool,
    identified: AtomicBool,
    /// The ids of its pod, if they are not the node's; learned when a process is in another user
    /// namespace.
    id_maps: OnceCell<Option<IdMaps>>,
    /// Held while one of its processes is examined, so that a huge mount table delays only its own
    /// pod.
    pub(crate) examining: Arc<AsyncMutex<()>>,
    /// How fast its processes may ask.
    pub(crate) limits: PeerLimits,
}

/// Work that goes on also when no caller waits for it, and its result.
pub(crate) type Writeback = Shared<BoxFuture<'static, Option<WritebackOutcome>>>;

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

    /// The volumes on disk, as (id, record). Without a record nothing was mounted yet, or is any
    /// more. One whose record is not understood is left out: it stays as it is until it is
    /// unpublished.
    pub(crate) fn recorded(&self) -> Result<Vec<(String, Result<Option<VolumeRecord>>)>> {
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
                let record = VolumeRecord::read(&directory)?;
                let understood = record.is_some() || !VolumeRecord::exists(&directory)?;
                anyhow::Ok((record, understood))
            };
            match read() {
                Ok((_, false)) => {
                    tracing::error!(volume = id, "the record is not valid; the volume is not served");
                }
                Ok((record, true)) => found.push((id.to_owned(), Ok(record))),
                Err(error) => found.push((id.to_owned(), Err(error))),
            }
        }
        Ok(found)
    }

    /// Locks a volume for a change. `None` while another call has it.
    pub(crate) fn try_lock(&self, id: &str) -> Option<VolumeGuard<'_>> {
        lock(&self.busy).insert(id.to_owned()).then(|| VolumeGuard {
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
    fn new(id: String, record: VolumeRecord) -> Self {
        Self {
            id,
            record,
            unpublished: CancellationToken::new(),
            kept: OnceLock::new(),
            writeback: OnceLock::new(),
            served: AtomicBool::new(false),
            identified: AtomicBool::new(false),
            id_maps: OnceCell::new(),
            examining: Arc::default(),
            limits: PeerLimits::default(),
        }
    }

    /// Holds the kept filesystem open. The first one is held: a container that restarts in its pod
    /// goes on with it.
    pub(crate) fn listen_for_errors(&self, kept: Kept) {
        self.kept.get_or_init(|| Arc::new(kept));
    }

    /// The kept filesystem, if it is held open.
    pub(crate) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.get().cloned()
    }

    /// Begins the work at the first call, and waits for it.
    pub(crate) fn writeback(&self, begin: impl FnOnce() -> Writeback) -> Writeback {
        self.writeback.get_or_init(begin).clone()
    }

    /// Records that a task listens on its socket.
    pub(crate) fn set_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Records that a process of its container connected and could be identified.
    pub(crate) fn set_identified(&self) {
        self.identified.store(true, Ordering::Relaxed);
    }

    /// Whether a process of its container was identified.
    pub(crate) fn is_identified(&self) -> bool {
        self.identified.load(Ordering::Relaxed)
    }

    /// Whether a task listens on its socket.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }
}

/// Whether a volume id can be a file name. The kubelet's are `csi-` and a hexadecimal hash.
pub(crate) fn is_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !id.is_empty() && id.len() <= 128 && id.chars().all(plain)
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

/// A lock whose holders never panic half-way: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod killed;
#[cfg(test)]
mod tests;
