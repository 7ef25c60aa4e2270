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

use std::collections::HashSet;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::namespace::Visitor;
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::process::{Proc, Process, ProcessError};
use crate::store::{Kept, StoreError};
use crate::table::{Table, TableError, ends_with, read_bounded};

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

/// A question that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum HoldersError {
    /// /proc could not be read.
    #[error("cannot list processes")]
    List(#[source] Errno),
    /// A mount table could not be read.
    #[error("cannot read the mount table of process {0}")]
    Table(i32, #[source] TableError),
    /// Where the question is asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel did not answer.
    #[error("cannot find out whether the kept filesystem is in use")]
    Probe(#[source] OverlayError),
}

/// Processes in whose mount tables a kept filesystem stands, one for each mount namespace.
pub fn find(proc: &Proc, key: &str) -> Result<Vec<Holder>, HoldersError> {
    let upper = format!("{key}/upper");
    let mut seen = HashSet::new();
    let mut holders = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = openat(proc, ".", flags, Mode::empty()).map_err(HoldersError::List)?;
    for entry in Dir::read_from(&list).map_err(HoldersError::List)? {
        let entry = entry.map_err(HoldersError::List)?;
        let number = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        let id = pid.as_raw_nonzero().get();
        // A table shows what is below the root of the process that is asked, so another root is another table.
        let Ok(namespace) = statat(proc, format!("{id}/ns/mnt"), AtFlags::empty()) else {
            continue;
        };
        let Ok(root) = statat(proc, format!("{id}/root"), AtFlags::empty()) else {
            continue;
        };
        if !seen.insert((namespace.st_ino, root.st_dev, root.st_ino)) {
            continue;
        }
        let Ok(file) = proc.open_at(format!("{id}/mountinfo"), OFlags::RDONLY) else {
            continue;
        };
        let text = match read_bounded(file) {
            Ok(text) => text,
            // It ended meanwhile.
            Err(TableError::Read(_)) => continue,
            Err(e) => return Err(HoldersError::Table(id, e)),
        };
        if !contains(&text, upper.as_bytes()) {
            continue;
        }
        let table = Table::parse(&text).map_err(|e| HoldersError::Table(id, e))?;
        let ours = |options: &[u8]| ends_with(options, &upper);
        if table
            .mounts()
            .iter()
            .any(|m| m.fs_type == "overlay" && m.super_option("upperdir").any(|o| ours(&o)))
        {
            match Process::open(pid) {
                Ok(process) => holders.push(Holder { process }),
                Err(ProcessError::Gone) => {}
                Err(error) => tracing::warn!(pid = id, %error, "holder of a kept filesystem"),
            }
        }
    }
    Ok(holders)
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

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}
