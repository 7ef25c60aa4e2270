//! What can fail in a case.

use std::io;
use std::path::{Path, PathBuf};

/// A case that could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file or program failed.
    #[error("{}: {source}", .path.display())]
    At {
        /// The file, or the program that was executed.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A connection on loopback failed.
    #[error("loopback: {0}")]
    Loopback(#[source] io::Error),
    /// The program that a case executes failed.
    #[error("{} ended with {status}", .program.display())]
    Program {
        /// Its path.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A file of the image is not as the image has it.
    #[error(
        "{} has {found} bytes and not {expected}: an earlier run changed it, so start another container",
        .path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// Its size in the image.
        expected: u64,
    },
    /// A directory of the image does not have its files.
    #[error("{} has {found} entries and not {expected}: build the image again", .path.display())]
    Entries {
        /// The directory.
        path: PathBuf,
        /// Number of its entries.
        found: usize,
        /// Number of its entries in the image.
        expected: usize,
    },
    /// The image does not have files for another run of the case.
    #[error("the image has no files for round {0}: run fewer rounds")]
    Round(u32),
}

/// Adds the path to an error of the standard library.
pub(crate) fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    |error| Error::At {
        path,
        source: error.into(),
    }
}
