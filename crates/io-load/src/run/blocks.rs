//! Reads and writes of blocks of one new file.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use super::{Place, Timed, settle, timed};
use crate::error::{Error, at};
use crate::image::{self, LARGE_BYTES};

const LARGE_BLOCK: usize = 1 << 20;
const SMALL_BLOCK: usize = 4 << 10;
/// Number of blocks of the file that is read.
const LARGE_BLOCKS: u64 = (LARGE_BYTES / LARGE_BLOCK) as u64;
const SMALL_BLOCKS: u64 = (LARGE_BYTES / SMALL_BLOCK) as u64;

pub(super) fn append_and_sync(place: &Place, count: u32) -> Result<Timed, Error> {
    let path = place.work.join("appended");
    let block = image::content(SMALL_BLOCK);
    let mut file = File::create(&path).map_err(at(&path))?;
    settle(place)?;
    let timed = timed(0..count, |_| {
        file.write_all(&block).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))
    })?;
    fs::remove_file(&path).map_err(at(&path))?;
    Ok(timed)
}

/// The time includes one sync at the end.
pub(super) fn write(place: &Place, count: u32) -> Result<Timed, Error> {
    let path = place.work.join("written");
    let block = image::content(LARGE_BLOCK);
    let mut file = File::create(&path).map_err(at(&path))?;
    settle(place)?;
    let timed = timed(0..count, |number| {
        file.write_all(&block).map_err(at(&path))?;
        if number + 1 == count {
            file.sync_all().map_err(at(&path))?;
        }
        Ok(())
    })?;
    fs::remove_file(&path).map_err(at(&path))?;
    Ok(timed)
}

pub(super) fn read(place: &Place, count: u32) -> Result<Timed, Error> {
    let (path, file) = prepared(place)?;
    fs::read(&path).map_err(at(&path))?;
    large_blocks(&path, &file, count)
}

pub(super) fn read_disk(place: &Place, count: u32) -> Result<Timed, Error> {
    let (path, file) = prepared(place)?;
    // Only pages that are not dirty can be dropped.
    file.sync_all().map_err(at(&path))?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(at(&path))?;
    large_blocks(&path, &file, count)
}

/// Reads one block after the other, and begins again at the end of the file.
fn large_blocks(path: &Path, file: &File, count: u32) -> Result<Timed, Error> {
    let mut block = vec![0; LARGE_BLOCK];
    timed(0..u64::from(count), |number| {
        let offset = number % LARGE_BLOCKS * LARGE_BLOCK as u64;
        file.read_exact_at(&mut block, offset).map_err(at(path))
    })
}

pub(super) fn read_random(place: &Place, count: u32) -> Result<Timed, Error> {
    let (path, file) = prepared(place)?;
    fs::read(&path).map_err(at(&path))?;
    let mut block = [0; SMALL_BLOCK];
    timed(offsets().take(count as usize), |offset| {
        file.read_exact_at(&mut block, offset).map_err(at(&path))
    })
}

pub(super) fn write_random(place: &Place, count: u32) -> Result<Timed, Error> {
    let (path, file) = prepared(place)?;
    fs::read(&path).map_err(at(&path))?;
    let block = image::content(SMALL_BLOCK);
    settle(place)?;
    timed(offsets().take(count as usize), |offset| {
        file.write_all_at(&block, offset).map_err(at(&path))
    })
}

/// The file that is read, which the first run makes.
fn prepared(place: &Place) -> Result<(PathBuf, File), Error> {
    let path = place.work.join("blocks");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    if file.metadata().map_err(at(&path))?.len() != LARGE_BYTES as u64 {
        file.write_all_at(&image::content(LARGE_BYTES), 0)
            .map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
    }
    Ok((path, file))
}

/// Places of small blocks, the same in each run: Marsaglia's xorshift with 64 bits.
fn offsets() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % SMALL_BLOCKS * SMALL_BLOCK as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_places_are_blocks_of_the_file() {
        let places: Vec<_> = offsets().take(1000).collect();
        let last = (LARGE_BYTES - SMALL_BLOCK) as u64;
        assert!(
            places
                .iter()
                .all(|place| *place <= last && place % SMALL_BLOCK as u64 == 0)
        );
        let different = places.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(different > 900, "{different}");
    }
}
