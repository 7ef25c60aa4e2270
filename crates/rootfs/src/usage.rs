/*!
Measures a directory tree of untrusted content.

It follows no link and crosses no mount. It holds two descriptors at any depth and remembers a
bounded number of directories at any width. It ends when its time is over; the result says then that
it is incomplete.
*/

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;

/// Bytes of paths that are remembered at most.
const MAX_PENDING: usize = 16 << 20;
/// Entries of a directory between two looks at the clock.
const STRIDE: usize = 1024;

/// What a tree takes on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Space in bytes. A file with several names counts once.
    pub bytes: u64,
    /// Inodes, the top's included.
    pub inodes: u64,
    /// Whether everything was reached.
    pub complete: bool,
}

/// Measures the tree below a directory until a time.
pub fn measure(top: impl AsFd, until: Instant) -> Result<Usage, Errno> {
    let top = top.as_fd();
    let stat = fstat(top)?;
    let mut walk = Walk {
        top,
        device: stat.st_dev,
        until,
        sum: Sum::default(),
        pending: vec![c".".to_owned()],
        remembered: 0,
        complete: true,
    };
    walk.sum.add(&stat);
    while let Some(path) = walk.pending.pop() {
        walk.remembered -= path.as_bytes().len().min(walk.remembered);
        if Instant::now() >= until {
            walk.complete = false;
            break;
        }
        match walk.directory(&path) {
            // Removed or replaced meanwhile: the container works here.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE) => {}
            Err(Errno::NAMETOOLONG) => walk.complete = false,
            Err(e) => return Err(e),
        }
    }
    Ok(walk.sum.usage(walk.complete))
}

struct Walk<'a> {
    top: BorrowedFd<'a>,
    device: u64,
    until: Instant,
    sum: Sum,
    pending: Vec<CString>,
    remembered: usize,
    complete: bool,
}

/// Sums of fractions: each of a file's names counts as its share, so nothing has to be remembered
/// to count it once.
#[derive(Default)]
struct Sum {
    bytes: u128,
    inodes: u128,
}

// === impl Walk ===

impl Walk<'_> {
    fn directory(&mut self, path: &CString) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = openat2(self.top, path, flags, Mode::empty(), resolve)?;
        for (at, entry) in Dir::read_from(&directory)?.enumerate() {
            if at % STRIDE == STRIDE - 1 && Instant::now() >= self.until {
                self.complete = false;
                return Ok(());
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match statat(
                &directory,
                name,
                AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
            ) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e),
            };
            if stat.st_dev != self.device {
                continue;
            }
            self.sum.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let below = [path.as_bytes(), b"/", name.to_bytes()].concat();
                self.remember(below);
            }
        }
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>) {
        if self.remembered + path.len() > MAX_PENDING {
            self.complete = false;
            return;
        }
        self.remembered += path.len();
        // A name from the kernel has no NUL in it.
        if let Ok(path) = CString::new(path) {
            self.pending.push(path);
        }
    }
}

// === impl Sum ===

impl Sum {
    const ONE: u128 = 1 << 32;

    fn add(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let names = if directory {
            1
        } else {
            u128::from(stat.st_nlink).max(1)
        };
        let blocks = u128::try_from(stat.st_blocks).unwrap_or_default();
        self.bytes += blocks * 512 * Self::ONE / names;
        self.inodes += Self::ONE / names;
    }

    fn usage(&self, complete: bool) -> Usage {
        let whole = |sum: u128| u64::try_from((sum + Self::ONE / 2) / Self::ONE).unwrap_or(u64::MAX);
        Usage {
            bytes: whole(self.bytes),
            inodes: whole(self.inodes),
            complete,
        }
    }
}

#[cfg(test)]
mod tests;
