/*!
Who uses a kept filesystem right now.

Two overlays on one upper directory corrupt it, and the kernel does not forbid
them (with `index=off` it only warns). So before one is made, two questions are
asked. The mount tables of all processes say *who* holds it. The kernel itself
says *whether* anybody does, even one that no table shows any more: a second
overlay that has the upper directory as its lower layer, made with `index=on`,
is refused while the first one lives. That second overlay writes nothing to the
kept filesystem. On a file system without file handles the kernel cannot do
`index=on` and does not refuse; there only the mount tables count.
*/

mod listing;
mod search;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, OFlags, fstat, statat};
use rustix::io::Errno;
use rustix::process::Pid;

use self::search::{Found, Search};
use crate::namespace::Visitor;
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::process::{Proc, Process, ProcessError};
use crate::store::{Kept, StoreError};

/// A process in whose mount namespace the kept filesystem is mounted.
#[derive(Debug)]
pub struct Holder {
    /// One of the processes of that namespace.
    pub process: Process,
}

/// What the kernel says about an upper directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// No overlay has it.
    Free,
    /// An overlay has it.
    Held,
}

/// How it is learned what a mount namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By listmount(2) and statmount(2), and where the kernel does not know those, as before 6.11, by tables.
    Calls,
    /// By mount tables.
    Tables,
}

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
    #[error("cannot find out whether the kept filesystem is in use")]
    Probe(#[source] OverlayError),
}

/// Processes in whose mount tables a kept filesystem stands, one for each mount namespace.
///
/// What somebody does to his own mounts hides nobody else's and makes nobody fail: any number of them, in places however
/// deep, is searched in bounded memory, and what cannot be searched, or not in the time that there is, is left to [`probe`].
pub fn find(proc: &Proc, key: &str) -> Result<Vec<Holder>, HoldersError> {
    find_by(proc, key, Means::Calls)
}

/// Like [`find`] by these means.
pub fn find_by(proc: &Proc, key: &str, means: Means) -> Result<Vec<Holder>, HoldersError> {
    let mut search = Search::new(format!("{key}/upper"));
    let mut seen = HashSet::new();
    let mut holders = Vec::new();
    for pid in numbers(proc, Path::new("."))? {
        let id = pid.as_raw_nonzero().get();
        let leader = PathBuf::from(id.to_string());
        let holds = match holds(proc, &leader, means, &mut search, &mut seen) {
            Some(holds) => holds,
            // Its first thread ended and has no table any more, but others may live on.
            None => threads(proc, &leader)
                .any(|thread| holds(proc, &thread, means, &mut search, &mut seen).unwrap_or(false)),
        };
        if holds {
            match Process::open(pid) {
                Ok(process) => holders.push(Holder { process }),
                Err(ProcessError::Gone) => {}
                Err(error) => tracing::warn!(pid = id, %error, "holder of a kept filesystem"),
            }
        }
    }
    Ok(holders)
}

/// Whether the mounts of a thread have what is searched. `None` if it has none any more, `Some(false)` too if they were
/// searched before.
fn holds(
    proc: &Proc,
    thread: &Path,
    means: Means,
    search: &mut Search,
    seen: &mut HashSet<(u64, u64, u64)>,
) -> Option<bool> {
    let namespace = proc.open_at(thread.join("ns/mnt"), OFlags::RDONLY).ok()?;
    // A table shows what is below the root of the process that is asked, so another root is another table.
    let root = statat(proc, thread.join("root"), AtFlags::empty()).ok()?;
    let view = (fstat(&namespace).ok()?.st_ino, root.st_dev, root.st_ino);
    if seen.contains(&view) {
        return Some(false);
    }
    let listed = match means {
        Means::Calls => listing::find(&namespace, search.upper()),
        Means::Tables => None,
    };
    let found = if let Some(found) = listed {
        found
    } else {
        let table = proc.open_at(thread.join("mountinfo"), OFlags::RDONLY).ok()?;
        let found = search.read(File::from(table));
        found
            .inspect_err(|error| {
                tracing::warn!(thread = %thread.display(), %error, "mount table that cannot be read");
            })
            .ok()?
    };
    if found == Found::Unknown {
        tracing::warn!(thread = %thread.display(), "mounts that are too many to be searched to their end");
    }
    seen.insert(view);
    Some(found == Found::Yes)
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

/// Asks the kernel. The thread must be in the mount namespace that the store was opened in, and the caller holds the
/// lock.
pub fn probe(visitor: &Visitor, kept: &Kept) -> Result<Use, HoldersError> {
    match ask(visitor, kept)? {
        // With an index the kernel remembers inodes, and those of a restored directory are others.
        Err(OverlayError::Refused {
            source: Errno::STALE, ..
        }) => kept.remove_probe()?,
        answer => return answer.map_err(HoldersError::Probe),
    }
    ask(visitor, kept)?.map_err(HoldersError::Probe)
}

fn ask(visitor: &Visitor, kept: &Kept) -> Result<Result<Use, OverlayError>, HoldersError> {
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
        context: None,
    };
    Ok(match question.mount(visitor) {
        Ok(_detached) => Ok(Use::Free),
        Err(OverlayError::InUse) => Ok(Use::Held),
        Err(e) => Err(e),
    })
}
