/*!
Measures a directory tree of untrusted content ([`crate::walk`]), as a whole or by directory.
*/

mod directories;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;

use crate::store::runtime::COVERED;
use crate::store::{Kept, StoreError};
use crate::walk::{Bounds, Entry, Visitor, walk};

pub use self::directories::{DirectoryUsage, directories};

/// Bytes of paths that are remembered at most.
const MAX_PENDING: usize = 16 << 20;

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
    let mut sum = Sum::default();
    let pending = MAX_PENDING;
    let complete = walk(top.as_fd(), Bounds { until, pending }, &mut sum)?;
    Ok(sum.usage(complete))
}

/// Measures what the user has in a kept filesystem until a time: the upper directory, and the files
/// that give way to those of the container runtime until a later start.
///
/// # Errors
/// If a directory cannot be opened or read.
pub fn measure_kept(kept: &Kept, until: Instant) -> Result<Usage, StoreError> {
    let fail = kept.fail("cannot measure the kept filesystem");
    let mut usage = measure(kept.upper()?, until).map_err(&fail)?;
    if let Some(covered) = kept.optional(COVERED)? {
        let covered = measure(covered, until).map_err(&fail)?;
        usage.bytes += covered.bytes;
        usage.inodes += covered.inodes;
        usage.complete &= covered.complete;
    }
    Ok(usage)
}

/// Sums of fractions: each of a file's names counts as its share, so nothing has to be remembered
/// to count it once.
#[derive(Default)]
struct Sum {
    bytes: u128,
    inodes: u128,
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

    /// Adds another sum.
    fn include(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
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

impl Visitor for Sum {
    fn enter(&mut self, directory: &OwnedFd, _: &CStr, _: usize) -> Result<(), Errno> {
        self.add(&fstat(directory)?);
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Errno> {
        self.add(entry.stat);
        Ok(())
    }

    fn leave(&mut self, _: usize) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
