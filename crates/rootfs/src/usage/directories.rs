//! What directories of a kept filesystem take on its disk.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::fstat;
use rustix::io::Errno;

use super::{Sum, Usage};
use crate::diff::{DiffError, Found, Source, locate};
use crate::walk::{Bounds, Entry, Visitor, walk};

/// Bytes of paths that are remembered at most.
const MAX_PENDING: usize = 4 << 20;

/// What a directory takes, with all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUsage {
    /// The absolute path.
    pub path: PathBuf,
    /// Space in bytes. A file with several names counts in part for each of them.
    pub bytes: u64,
    /// Inodes, the directory's included.
    pub inodes: u64,
}

/// Passes the usage of an absolute path and of the directories down to `depth` below it to
/// `receive`, until that returns false or the time is over. A directory comes after those in it.
/// Files of the image that were not changed take nothing. Returns whether everything was reached.
pub fn directories(
    source: Source<'_>,
    path: &Path,
    depth: usize,
    until: Instant,
    receive: &mut (dyn FnMut(DirectoryUsage) -> bool + Send),
) -> Result<bool, DiffError> {
    let Source {
        proc,
        node,
        image,
        kept,
    } = source;
    let start = path.strip_prefix("/").unwrap_or(path);
    crate::attach::with_image(proc, node, image, kept, |image| {
        let mut directories = Directories {
            start,
            depth,
            open: Vec::new(),
            stopped: false,
            receive,
        };
        match locate(&kept.upper()?, image, start)? {
            Found::Directory { directory, .. } => {
                let pending = MAX_PENDING;
                let bounds = Bounds { until, pending };
                match walk(directory.as_fd(), bounds, &mut directories) {
                    Err(_) if directories.stopped => Err(DiffError::Stopped),
                    walked => Ok(walked?),
                }
            }
            Found::File { stat, .. } => {
                let mut sum = Sum::default();
                sum.add(&stat);
                directories.report(start, &sum)?;
                Ok(true)
            }
            Found::Deleted(_) | Found::Unchanged => {
                directories.report(start, &Sum::default())?;
                Ok(true)
            }
        }
    })?
}

struct Directories<'a> {
    start: &'a Path,
    depth: usize,
    /// The directories that are listed and were entered, the outermost first.
    open: Vec<(PathBuf, Sum)>,
    stopped: bool,
    receive: &'a mut (dyn FnMut(DirectoryUsage) -> bool + Send),
}

// === impl Directories ===

impl Directories<'_> {
    fn report(&mut self, path: &Path, sum: &Sum) -> Result<(), Errno> {
        let Usage { bytes, inodes, .. } = sum.usage(true);
        let directory = DirectoryUsage {
            path: Path::new("/").join(path),
            bytes,
            inodes,
        };
        self.stopped = self.stopped || !(self.receive)(directory);
        if self.stopped {
            Err(Errno::CANCELED)
        } else {
            Ok(())
        }
    }
}

impl Visitor for Directories<'_> {
    fn enter(&mut self, directory: &OwnedFd, path: &CStr, depth: usize) -> Result<(), Errno> {
        if depth <= self.depth {
            let below = Path::new(OsStr::from_bytes(path.to_bytes()));
            let below = below.strip_prefix(".").unwrap_or(below);
            let path = if depth == 0 {
                self.start.to_owned()
            } else {
                self.start.join(below)
            };
            self.open.push((path, Sum::default()));
        }
        let stat = fstat(directory)?;
        if let Some((_, sum)) = self.open.last_mut() {
            sum.add(&stat);
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Errno> {
        if let Some((_, sum)) = self.open.last_mut() {
            sum.add(entry.stat);
        }
        Ok(())
    }

    fn leave(&mut self, depth: usize) -> Result<(), Errno> {
        if depth > self.depth {
            return Ok(());
        }
        let Some((path, sum)) = self.open.pop() else {
            return Ok(());
        };
        if let Some((_, above)) = self.open.last_mut() {
            above.include(&sum);
        }
        self.report(&path, &sum)
    }
}
