/*!
Whether a kept filesystem is in use, and which processes use it.

Two overlays on one upper directory corrupt it, and the kernel does not forbid them (with
`index=off` it only warns). So before an overlay is made, [`probe`] asks the kernel *whether*
another one uses the upper directory, even one without a mount: a second overlay with the upper
directory as its lower layer and `index=on` is refused while the first one lives. The second overlay
writes nothing to the kept filesystem. It needs file handles, so file systems without them cannot
hold kept filesystems (see `store`). The kernel may fall back to `index=off` and then refuses
nothing, so the answer counts only if the kernel made an index for the second overlay.

*Which* processes use it is read from the mounts of all processes ([`find`]). That proves nothing:
every user with a user namespace can give mounts the names that are searched.
*/

mod listing;
mod search;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::Pid;

use self::search::Found;
use crate::cached_stat;
use crate::namespace::NamespaceThread;
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::process::{Proc, Process, ProcessError};
use crate::store::{Kept, StoreError};

/// A process in whose mount namespace the kept filesystem is mounted.
#[derive(Debug)]
pub struct Holder {
    /// One of the processes of that namespace.
    pub process: Process,
    /// Whether it is in the user namespace of the caller. Else it may have nothing but a mount with
    /// the right name, or have left that namespace with the mounts of a container.
    pub in_host_userns: bool,
}

/// What the kernel says about an upper directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// No overlay has it.
    Free,
    /// An overlay has it.
    Held,
    /// The kernel did not say: it made the overlay that asks, but not as one that it would refuse.
    /// One reason is a disk without room for an extended attribute.
    Unknown,
}

/// How to list the mounts of a mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By listmount(2) and statmount(2), and where the kernel does not know those, as before 6.11,
    /// by tables.
    Calls,
    /// By mount tables.
    Tables,
}

/// A look at the mounts of all processes.
struct Survey<'a> {
    proc: &'a Proc,
    /// The last components of the path of the upper directory.
    upper: String,
    method: Method,
    budget: TimeBudget,
    /// The mounts that are searched, of the namespaces that were listed; none for one of which the
    /// kernel did not tell.
    namespaces: HashMap<u64, Option<Vec<u64>>>,
    /// A thread with mounts that were not searched to their end, and how many of those there are.
    unsearched: (Option<PathBuf>, usize),
    /// Tables that were read (namespace, and mount and inode of the root), and whether they have
    /// what is searched.
    tables: HashMap<(u64, u64, u64), bool>,
}

/// What a thread has mounted.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadMounts {
    namespace: u64,
    /// Whether that is searched.
    holds: bool,
    /// Whether it is at its root. Tables are not asked where it is.
    at_root: bool,
}

/// Time for mounts beyond the usual number, for a survey as a whole.
#[derive(Debug, PartialEq, Eq)]
struct TimeBudget(Duration);

/// A question that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum HoldersError {
    /// /proc could not be read.
    #[error("cannot list processes")]
    List(#[source] Errno),
    /// Where the question is asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel did not answer.
    #[error("cannot check whether the kept filesystem is in use")]
    Probe(#[source] OverlayError),
}

/// Processes in whose mount namespaces a kept filesystem is, one for each namespace: one that has
/// it as its root, if any. Those come first, and before them those in the user namespace of the
/// caller.
///
/// A user's own mounts cannot hide those of other users or make the search fail: any number of
/// mounts at any depth is searched in bounded memory. What cannot be searched, or not in time, is
/// left to [`probe`].
pub fn find(proc: &Proc, key: &str) -> Result<Vec<Holder>, HoldersError> {
    find_by(proc, key, Method::Calls)
}

/// Like [`find`] by this method.
pub fn find_by(proc: &Proc, key: &str, method: Method) -> Result<Vec<Holder>, HoldersError> {
    let mut survey = Survey {
        proc,
        upper: format!("{key}/upper"),
        method,
        budget: TimeBudget::new(),
        namespaces: HashMap::new(),
        unsearched: (None, 0),
        tables: HashMap::new(),
    };
    let mut found: Vec<(ThreadMounts, Holder)> = Vec::new();
    for pid in numbers(proc, Path::new("."))? {
        let leader = PathBuf::from(pid.as_raw_nonzero().to_string());
        let sight = match survey.of(&leader) {
            Some(sight) => sight,
            // Its first thread ended and has no mounts any more, but others may live on.
            None => threads(proc, &leader)
                .filter_map(|thread| survey.of(&thread))
                .find(|sight| sight.holds)
                .unwrap_or_default(),
        };
        if !sight.holds {
            continue;
        }
        let known = found
            .iter()
            .position(|(known, _)| known.namespace == sight.namespace);
        if known.is_some_and(|at| found[at].0.at_root >= sight.at_root) {
            continue;
        }
        match Process::open(pid) {
            Ok(process) => {
                if let Some(at) = known {
                    found.remove(at);
                }
                let in_host_userns = process.shares_user_namespace(proc).unwrap_or(false);
                found.push((
                    sight,
                    Holder {
                        process,
                        in_host_userns,
                    },
                ));
            }
            Err(ProcessError::Gone) => {}
            Err(error) => {
                tracing::warn!(pid = %leader.display(), %error, "holder of a kept filesystem");
            }
        }
    }
    if let (Some(thread), count) = &survey.unsearched {
        // Once, whatever a tenant does to the mounts of all of his processes.
        tracing::warn!(thread = %thread.display(), count, "mounts that cannot be searched completely");
    }
    found.sort_by_key(|(sight, holder)| (!holder.in_host_userns, !sight.at_root));
    Ok(found.into_iter().map(|(_, holder)| holder).collect())
}

// === impl Survey ===

impl Survey<'_> {
    /// What a thread has mounted. `None` if it has ended, or this cannot be learned of it.
    fn of(&mut self, thread: &Path) -> Option<ThreadMounts> {
        let file = self.proc.open_at(thread.join("ns/mnt"), OFlags::RDONLY).ok()?;
        let namespace = fstat(&file).ok()?.st_ino;
        let sight = |holds: bool, at_root: bool| ThreadMounts {
            namespace,
            holds,
            at_root: holds && at_root,
        };
        if self.method == Method::Calls {
            if !self.namespaces.contains_key(&namespace) {
                let listed = listing::find(&file, &self.upper, &mut self.budget);
                if listed.as_ref().is_some_and(|listed| !listed.complete) {
                    self.note(thread);
                }
                self.namespaces.insert(namespace, listed.map(|listed| listed.ids));
            }
            if let Some(Some(ids)) = self.namespaces.get(&namespace) {
                let at_root = !ids.is_empty() && self.is_root(thread, ids);
                return Some(sight(!ids.is_empty(), at_root));
            }
        }
        // A table shows what is below the root of the process that is asked, so another root is
        // another table.
        let root = cached_stat::through(self.proc, thread.join("root")).ok()?;
        let view = (namespace, root.mount, root.inode);
        if let Some(holds) = self.tables.get(&view) {
            return Some(sight(*holds, true));
        }
        let table = self.proc.open_at(thread.join("mountinfo"), OFlags::RDONLY).ok()?;
        let found = search::find(File::from(table), &self.upper, &mut self.budget)
            .inspect_err(|error| {
                tracing::debug!(thread = %thread.display(), %error, "mount table that cannot be read");
                self.note(thread);
            })
            .ok()?;
        if found == Found::Unknown {
            self.note(thread);
        }
        self.tables.insert(view, found == Found::Yes);
        Some(sight(found == Found::Yes, true))
    }

    fn note(&mut self, thread: &Path) {
        let (first, count) = &mut self.unsearched;
        first.get_or_insert_with(|| thread.to_owned());
        *count += 1;
    }

    /// Whether one of these mounts is the root of a thread.
    fn is_root(&self, thread: &Path, mounts: &[u64]) -> bool {
        let root = cached_stat::through(self.proc, thread.join("root"));
        root.is_ok_and(|root| root.is_mount_root && mounts.contains(&root.mount))
    }
}

// === impl TimeBudget ===

impl TimeBudget {
    fn new() -> Self {
        Self(Duration::from_secs(5))
    }

    fn is_over(&self) -> bool {
        self.0.is_zero()
    }

    fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.0 = self.0.saturating_sub(begun.elapsed());
        result
    }
}

/// The threads of a process. None if it is gone.
fn threads(proc: &Proc, process: &Path) -> impl Iterator<Item = PathBuf> {
    let directory = process.join("task");
    let ids = numbers(proc, &directory).unwrap_or_default();
    ids.into_iter()
        .map(move |id| directory.join(id.as_raw_nonzero().to_string()))
}

/// Ids in a directory of /proc.
fn numbers(proc: &Proc, directory: &Path) -> Result<Vec<Pid>, HoldersError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let list = proc.open_at(directory, flags).map_err(HoldersError::List)?;
    let mut ids = Vec::new();
    for entry in Dir::read_from(&list).map_err(HoldersError::List)? {
        let entry = entry.map_err(HoldersError::List)?;
        let number = entry.file_name().to_str().ok();
        ids.extend(number.and_then(|name| Pid::from_raw(name.parse().ok()?)));
    }
    Ok(ids)
}

/// Asks the kernel. The thread must be in the mount namespace that the store was opened in, and the
/// caller holds the lock.
pub fn probe(thread: &NamespaceThread, kept: &Kept) -> Result<Use, HoldersError> {
    let answer = match ask(thread, kept) {
        // With an index the kernel remembers inodes, and those of a restored directory are others.
        Err(HoldersError::Probe(OverlayError::Refused {
            source: Errno::STALE, ..
        })) => {
            kept.remove_probe()?;
            ask(thread, kept)
        }
        // Most likely for want of space.
        Ok(Use::Unknown) => {
            kept.drop_ballast()?;
            ask(thread, kept)
        }
        answer => answer,
    };
    if let Ok(Use::Free) = answer {
        kept.take_ballast();
    }
    answer
}

fn ask(thread: &NamespaceThread, kept: &Kept) -> Result<Use, HoldersError> {
    kept.make_probe()?;
    let upper = kept.upper()?;
    let (probe, work) = (
        format!("{}/probe/upper", kept.key()),
        format!("{}/probe/work", kept.key()),
    );
    let question = Overlay {
        lower: vec![std::os::fd::AsFd::as_fd(&upper)],
        upper: Some(Upper {
            base: kept.store(),
            upper: &probe,
            work: &work,
        }),
        exclusive: true,
        volatile: false,
        context: None,
    };
    match question.mount(thread) {
        Ok(_detached) if kept.has_index()? => Ok(Use::Free),
        Ok(_detached) => Ok(Use::Unknown),
        Err(OverlayError::InUse) => Ok(Use::Held),
        Err(error) => Err(HoldersError::Probe(error)),
    }
}
