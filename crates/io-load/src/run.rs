//! One run of a case.

mod blocks;
mod copies;
mod processes;
mod small;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::case::{Amount, Case};
use crate::error::{Error, at};

/// Where a case is run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Directory of the files of the image: the root of the container.
    pub image: PathBuf,
    /// Directory that cases make files in. It is made if it does not exist.
    pub work: PathBuf,
    /// A program that ends at once, with success, when it is executed with the argument `true`.
    pub program: PathBuf,
}

/// Operations that were timed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// How many were done.
    pub operations: u32,
    /// How long they took.
    pub elapsed: Duration,
}

/// Runs a case. A round, counted from 0, uses files of the image that earlier rounds have not
/// changed.
///
/// # Errors
/// If an operation fails, or a file of the image is not as it was in the image.
pub fn run(case: Case, place: &Place, amount: Amount, round: u32) -> Result<Vec<Timed>, Error> {
    if round >= amount.rounds {
        return Err(Error::Round(round));
    }
    fs::create_dir_all(&place.work).map_err(at(&place.work))?;
    let count = amount.operations;
    let once = || match case {
        Case::Getpid => Ok(processes::getpid(count)),
        Case::Spawn => processes::spawn(place, count),
        Case::Loopback => processes::loopback(count),
        Case::Stat => small::stat(place, count),
        Case::ReadSmall => small::read(place, count),
        Case::List => small::list(place, count),
        Case::Create => small::create(place, count),
        Case::Rename => small::rename(place, count),
        Case::Unlink => small::unlink(place, count),
        Case::CopyUpSmall => copies::small(place, count, round),
        Case::CopyUpLarge => copies::large(place, count, round),
        Case::AppendSync => blocks::append_and_sync(place, count),
        Case::Write => blocks::write(place, count),
        Case::Read => blocks::read(place, count),
        Case::ReadDisk => blocks::read_disk(place, count),
        Case::ReadRandom => blocks::read_random(place, count),
        Case::WriteRandom => blocks::write_random(place, count),
    };
    (0..amount.repeats).map(|_| once()).collect()
}

/// Times an operation for each of these. Stops at the first that fails.
fn timed<T>(
    over: impl IntoIterator<Item = T>,
    mut operation: impl FnMut(T) -> Result<(), Error>,
) -> Result<Timed, Error> {
    let mut operations = 0;
    let begin = Instant::now();
    for one in over {
        operation(one)?;
        operations += 1;
    }
    let elapsed = begin.elapsed();
    Ok(Timed { operations, elapsed })
}

/// Writes the dirty pages of the file system to the disk, so that they are not written while a case
/// is timed.
fn settle(place: &Place) -> Result<(), Error> {
    let directory = File::open(&place.work).map_err(at(&place.work))?;
    rustix::fs::syncfs(directory).map_err(at(&place.work))
}

#[cfg(test)]
mod tests;
