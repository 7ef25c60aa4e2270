//! Small files: those of the image that are only read, and new ones.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{Place, Timed, settle, timed};
use crate::error::{Error, at};
use crate::image::{self, READ, READ_FILES, SMALL_BYTES};

/// The files of the image, again and again.
fn of_image(place: &Place) -> Vec<PathBuf> {
    (0..READ_FILES)
        .map(|number| place.image.join(image::file(READ, number)))
        .collect()
}

pub(super) fn stat(place: &Place, count: u32) -> Result<Timed, Error> {
    let files = of_image(place);
    let stat = |file: &PathBuf| fs::symlink_metadata(file).map(drop).map_err(at(file));
    files.iter().try_for_each(stat)?;
    timed(files.iter().cycle().take(count as usize), stat)
}

pub(super) fn read(place: &Place, count: u32) -> Result<Timed, Error> {
    let files = of_image(place);
    let mut buffer = [0; SMALL_BYTES];
    let mut read = |path: &PathBuf| {
        let mut file = File::open(path).map_err(at(path))?;
        file.read_exact(&mut buffer).map_err(at(path))
    };
    files.iter().try_for_each(&mut read)?;
    timed(files.iter().cycle().take(count as usize), read)
}

pub(super) fn list(place: &Place, count: u32) -> Result<Timed, Error> {
    let path = place.image.join(READ);
    let list = |_| {
        let mut found = 0;
        for entry in fs::read_dir(&path).map_err(at(&path))? {
            entry.map_err(at(&path))?;
            found += 1;
        }
        let expected = READ_FILES as usize;
        if found == expected {
            return Ok(());
        }
        let path = path.clone();
        Err(Error::Entries {
            path,
            found,
            expected,
        })
    };
    list(0)?;
    timed(0..count, list)
}

pub(super) fn create(place: &Place, count: u32) -> Result<Timed, Error> {
    in_new_directory(place, |directory| {
        settle(place)?;
        timed(names(directory, "new", count), |path| make(&path))
    })
}

pub(super) fn rename(place: &Place, count: u32) -> Result<Timed, Error> {
    in_new_directory(place, |directory| {
        let from = names(directory, "from", count);
        from.iter().try_for_each(|path| make(path))?;
        let to = names(directory, "to", count);
        settle(place)?;
        timed(from.iter().zip(&to), |(from, to)| {
            fs::rename(from, to).map_err(at(from))
        })
    })
}

pub(super) fn unlink(place: &Place, count: u32) -> Result<Timed, Error> {
    in_new_directory(place, |directory| {
        let files = names(directory, "new", count);
        files.iter().try_for_each(|path| make(path))?;
        settle(place)?;
        timed(files, |path| fs::remove_file(&path).map_err(at(&path)))
    })
}

/// The directory is removed in the end.
fn in_new_directory(place: &Place, work: impl FnOnce(&Path) -> Result<Timed, Error>) -> Result<Timed, Error> {
    let directory = place.work.join("small");
    // A run may have been interrupted.
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&directory)(error)),
        _ => {}
    }
    fs::create_dir(&directory).map_err(at(&directory))?;
    let timed = work(&directory)?;
    fs::remove_dir_all(&directory).map_err(at(&directory))?;
    Ok(timed)
}

fn names(directory: &Path, kind: &str, count: u32) -> Vec<PathBuf> {
    (0..count)
        .map(|number| directory.join(format!("{kind}-{number:05}")))
        .collect()
}

fn make(path: &Path) -> Result<(), Error> {
    File::create_new(path).map(drop).map_err(at(path))
}
