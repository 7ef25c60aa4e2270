//! The files of the images, with paths relative to the root.

use std::path::PathBuf;

use crate::case::Case;

/// Directory of all files but the program.
pub const DIRECTORY: &str = "data";
/// Directory of the files that are read.
pub const READ: &str = "data/read";
/// Directory of the small files that are copied up.
pub const COPIED: &str = "data/copied";
/// Directory of the large files that are copied up.
pub const LARGE: &str = "data/large";

/// Number of files in [`READ`].
pub const READ_FILES: u32 = 512;
/// Number of files in [`COPIED`]: enough for [`MOST_ROUNDS`] rounds.
pub const COPIED_FILES: u32 = MOST_ROUNDS * Case::CopyUpSmall.amount().operations;
/// Number of files in [`LARGE`]. Only this many rounds copy one up.
pub const LARGE_FILES: u32 = 6;
/// Highest number of rounds.
pub const MOST_ROUNDS: u32 = 31;

/// Bytes of a file in [`READ`] or [`COPIED`].
pub const SMALL_BYTES: usize = 4 << 10;
/// Bytes of a file in [`LARGE`].
pub const LARGE_BYTES: usize = 24 << 20;

/// A file in a directory of the image.
pub fn file(directory: &str, number: u32) -> PathBuf {
    PathBuf::from(format!("{directory}/{number:04}"))
}

/// The content of a file. It has no zeros, because a file system could store those as a hole, which
/// is not copied.
pub fn content(bytes: usize) -> Vec<u8> {
    (1..=u8::MAX).cycle().take(bytes).collect()
}
