/*!
Walks a directory tree of untrusted content.

It follows no link and crosses no mount. It holds two descriptors at any depth and remembers a
bounded number of directories at any width. It ends when its time is over; the result says then that
it is incomplete.
*/

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;

/// Entries of a directory between two looks at the clock.
const STRIDE: usize = 1024;
/// What a remembered directory takes besides its path, in bytes.
const OVERHEAD: usize = 32;

/// The limits of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// When it ends.
    pub(crate) until: Instant,
    /// Bytes of paths that are remembered at most.
    pub(crate) pending: usize,
}

/// A file that a walk came to. Everything but a directory is a file.
pub(crate) struct Entry<'a> {
    /// The directory that it is in.
    pub(crate) parent: &'a OwnedFd,
    /// The path of that, as for [`Visitor::enter`].
    pub(crate) above: &'a CStr,
    /// Its name.
    pub(crate) name: &'a CStr,
    /// What it is.
    pub(crate) stat: &'a Stat,
}

/// What a walk is for. An error ends the walk.
pub(crate) trait Visitor {
    /// Comes to a directory. `path` begins with `.`, the top, and `depth` is the number of
    /// directories between it and the top.
    fn enter(&mut self, directory: &OwnedFd, path: &CStr, depth: usize) -> Result<(), Errno>;

    /// Comes to a file of the directory that was entered last.
    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Errno>;

    /// Has been to everything below a directory.
    fn leave(&mut self, depth: usize) -> Result<(), Errno>;
}

enum Step {
    Enter(CString, usize),
    Leave(usize),
}

struct Walk {
    device: u64,
    bounds: Bounds,
    pending: Vec<Step>,
    remembered: usize,
    complete: bool,
}

/// Walks the tree below a directory, and that itself. Returns whether everything was reached.
pub(crate) fn walk(top: BorrowedFd<'_>, bounds: Bounds, visitor: &mut impl Visitor) -> Result<bool, Errno> {
    let mut walk = Walk {
        device: fstat(top)?.st_dev,
        bounds,
        pending: vec![Step::Enter(c".".to_owned(), 0)],
        remembered: 0,
        complete: true,
    };
    while let Some(step) = walk.pending.pop() {
        walk.remembered -= step.size().min(walk.remembered);
        let (path, depth) = match step {
            Step::Enter(path, depth) => (path, depth),
            Step::Leave(depth) => {
                visitor.leave(depth)?;
                continue;
            }
        };
        // The visitor still leaves what it has entered.
        if Instant::now() >= bounds.until {
            walk.complete = false;
            continue;
        }
        match open_below(top, &path) {
            Ok(directory) => walk.directory(&directory, &path, depth, visitor)?,
            // Removed or replaced meanwhile: the container works here.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE) => {}
            Err(Errno::NAMETOOLONG) => walk.complete = false,
            Err(e) => return Err(e),
        }
    }
    Ok(walk.complete)
}

/// Opens a directory of the tree.
pub(crate) fn open_below(top: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(top, path, flags, Mode::empty(), resolve)
}

// === impl Walk ===

impl Walk {
    fn directory(
        &mut self,
        directory: &OwnedFd,
        path: &CString,
        depth: usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), Errno> {
        visitor.enter(directory, path, depth)?;
        self.pending.push(Step::Leave(depth));
        self.remembered += OVERHEAD;
        for (at, entry) in Dir::read_from(directory)?.enumerate() {
            if at % STRIDE == STRIDE - 1 && Instant::now() >= self.bounds.until {
                self.complete = false;
                return Ok(());
            }
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed meanwhile.
                Err(Errno::NOENT | Errno::STALE) => return Ok(()),
                Err(e) => return Err(e),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            let stat = match statat(directory, name, flags) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e),
            };
            if stat.st_dev != self.device {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let below = [path.as_bytes(), b"/", name.to_bytes()].concat();
                self.remember(below, depth + 1);
            } else {
                let (parent, above, stat) = (directory, path.as_c_str(), &stat);
                visitor.file(&Entry {
                    parent,
                    above,
                    name,
                    stat,
                })?;
            }
        }
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>, depth: usize) {
        if self.remembered + path.len() + OVERHEAD > self.bounds.pending {
            self.complete = false;
            return;
        }
        // A name from the kernel has no NUL in it.
        if let Ok(path) = CString::new(path) {
            let step = Step::Enter(path, depth);
            self.remembered += step.size();
            self.pending.push(step);
        }
    }
}

// === impl Step ===

impl Step {
    fn size(&self) -> usize {
        match self {
            Self::Enter(path, _) => path.as_bytes().len() + OVERHEAD,
            Self::Leave(_) => OVERHEAD,
        }
    }
}
