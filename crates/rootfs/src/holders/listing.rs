/*!
Looks for one overlay in a mount namespace by asking for nothing but overlays.

The kernel holds a whole line of a mount table in memory before any of it can be read. The line has
the path of the mount point, which can be deeper than any limit on names: a user who may mount can
make a line of hundreds of megabytes, which are accounted to the reader. `statmount(2)` returns the
options of a mount without its path, for other namespaces since Linux 6.11. Before, there are only
the tables ([`super::search`]).
*/

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::TimeBudget;
use super::search::names_upper;
use crate::sys;

/// How many mounts are listed at once.
const LIST: usize = 512;
/// How often in any case. A container has some dozens of mounts.
const ANY_CASE: usize = 16;
/// At most this often, so that a process that mounts meanwhile cannot keep the agent busy. The
/// kernel's limit is 100,000 mounts a namespace.
const LISTS: usize = 2048;
/// Largest answer about one mount, in bytes. An overlay has at most 500 layers, each with a path of
/// 4 KiB, in which a byte may take four.
const MAX_ANSWER: usize = 16 << 20;

// linux/mount.h, of `struct statmount`: bits of the mask, and where fields are.
const SB_BASIC: u64 = 0x1;
const MNT_BASIC: u64 = 0x2;
const MNT_OPTS: u64 = 0x80;
const OPTIONS_AT: usize = 4;
const MASK_AT: usize = 8;
const MAGIC_AT: usize = 24;
const ID_AT: usize = 56;
const STRINGS_AT: usize = 512;
/// linux/magic.h
const OVERLAYFS: u64 = 0x794c_7630;

/// Mounts of a namespace, as far as they are of an overlay with such an upper directory.
#[derive(Debug)]
pub(super) struct Listed {
    /// Their ids, as statx(2) tells them.
    pub(super) ids: Vec<u64>,
    /// Whether all mounts were looked at.
    pub(super) complete: bool,
}

/// Looks through a mount namespace. `None` if this kernel does not say.
pub(super) fn find(namespace: impl AsFd, upper: &str, budget: &mut TimeBudget) -> Option<Listed> {
    let namespace = sys::mount_namespace_id(namespace).ok()?;
    let mut search = Search {
        namespace,
        last: 0,
        answer: vec![0; 512],
        found: Vec::new(),
    };
    let mut complete = false;
    for round in 0..LISTS {
        complete = if round < ANY_CASE {
            search.next(upper)?
        } else if budget.is_over() {
            break;
        } else {
            budget.spend(|| search.next(upper))?
        };
        if complete {
            break;
        }
    }
    Some(Listed {
        ids: search.found,
        complete,
    })
}

/// A search through a namespace.
struct Search {
    namespace: u64,
    /// The last mount that was looked at.
    last: u64,
    /// Buffer for the kernel's answer about one mount.
    answer: Vec<u64>,
    found: Vec<u64>,
}

// === impl Search ===

impl Search {
    /// Looks at some more mounts. Whether there are none.
    fn next(&mut self, upper: &str) -> Option<bool> {
        let mut ids = [0; LIST];
        let count = sys::list_mounts(self.namespace, self.last, &mut ids).ok()?;
        for id in ids.get(..count)? {
            self.look_at(*id, upper)?;
            self.last = *id;
        }
        Some(count == 0)
    }

    /// Notes the id of a mount, if it is one that is searched.
    fn look_at(&mut self, mount: u64, upper: &str) -> Option<()> {
        match sys::stat_mount(self.namespace, mount, SB_BASIC, &mut self.answer) {
            Ok(()) => {}
            // It was unmounted meanwhile.
            Err(Errno::NOENT) => return Some(()),
            Err(_) => return None,
        }
        if self.number(MAGIC_AT)? != OVERLAYFS {
            return Some(());
        }
        loop {
            match sys::stat_mount(self.namespace, mount, MNT_BASIC | MNT_OPTS, &mut self.answer) {
                Ok(()) => break,
                Err(Errno::NOENT) => return Some(()),
                Err(Errno::OVERFLOW) if size_of_val(&self.answer[..]) < MAX_ANSWER => {
                    self.answer.resize(self.answer.len() * 2, 0);
                }
                Err(_) => return None,
            }
        }
        // The kernel does not know of options, else: no overlay has none.
        if self.number(MASK_AT)? & MNT_OPTS == 0 {
            return None;
        }
        let bytes: Vec<u8> = self.answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let half = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let at = STRINGS_AT + usize::try_from(half(OPTIONS_AT)?).ok()?;
        let options = bytes.get(at..)?.split(|byte| *byte == 0).next()?;
        if names_upper(options, upper) {
            self.found.push(u64::from(half(ID_AT)?));
        }
        Some(())
    }

    /// A field of 64 bits.
    fn number(&self, at: usize) -> Option<u64> {
        self.answer.get(at / size_of::<u64>()).copied()
    }
}
