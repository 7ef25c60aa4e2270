//! First writes to files of the image. Overlayfs copies such a file before it opens it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Place, Timed, settle, timed};
use crate::error::{Error, at};
use crate::image::{self, COPIED, COPIED_FILES, LARGE, LARGE_BYTES, LARGE_FILES, SMALL_BYTES};

pub(super) fn small(place: &Place, count: u32, round: u32) -> Result<Timed, Error> {
    let files = of_round(place, (COPIED, COPIED_FILES, SMALL_BYTES), count, round)?;
    first_writes(place, &files)
}

/// The copies are emptied afterwards, so that they take no room.
pub(super) fn large(place: &Place, count: u32, round: u32) -> Result<Timed, Error> {
    let files = of_round(place, (LARGE, LARGE_FILES, LARGE_BYTES), count, round)?;
    let timed = first_writes(place, &files)?;
    for path in &files {
        let file = File::options().write(true).open(path).map_err(at(path))?;
        file.set_len(0).map_err(at(path))?;
    }
    Ok(timed)
}

/// The files of a round, which are in the page cache then: containers of one image share the pages
/// of its files, and the container that comes first must not pay for the others.
fn of_round(
    place: &Place,
    (directory, available, bytes): (&str, u32, usize),
    count: u32,
    round: u32,
) -> Result<Vec<PathBuf>, Error> {
    let first = round * count;
    if first + count > available {
        return Err(Error::Round(round));
    }
    let files = (first..first + count).map(|number| place.image.join(image::file(directory, number)));
    let files: Vec<_> = files.collect();
    for path in &files {
        let content = fs::read(path).map_err(at(path))?;
        if content.len() != bytes {
            return Err(Error::Changed {
                path: path.clone(),
                found: content.len() as u64,
                expected: bytes as u64,
            });
        }
    }
    Ok(files)
}

fn first_writes(place: &Place, files: &[PathBuf]) -> Result<Timed, Error> {
    settle(place)?;
    timed(files, |path| append(path))
}

fn append(path: &Path) -> Result<(), Error> {
    let mut file = File::options().append(true).open(path).map_err(at(path))?;
    file.write_all(b"x").map_err(at(path))
}
