//! Whether two files are the same, and what an overlay's marks mean.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{
    Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, fstat, openat2, readlinkat,
};
use rustix::io::Errno;

use super::type_of;
use crate::root::open_file;
use crate::walk::open_below;

/// How an overlay marks a directory that hides those below it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// How the kernel marks what it copied up from a layer below (overlayfs.rst, "Inode properties").
const ORIGIN: &str = "trusted.overlay.origin";
/// Attributes that are not the user's: those of the overlay, and a label that depends on how the
/// file system is mounted.
const NOT_COMPARED: [&[u8]; 2] = [b"trusted.overlay.", b"security.selinux"];
/// Largest list of names and largest value of attributes: the kernel's limits (xattr(7)).
const MAX_ATTRIBUTE: usize = 64 << 10;
/// Most bytes of attributes of one file that are compared.
const MAX_ATTRIBUTES: usize = 1 << 20;
/// Bytes of files that are compared at a time.
const CHUNK: usize = 64 << 10;

/// Something below a directory, open for looks alone, without following a link. `None` if it is not
/// there.
pub(super) fn open_path(top: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(top, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The same with what it is. A mark that something was deleted is nothing.
pub(super) fn look(top: BorrowedFd<'_>, path: &Path) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let Some(found) = open_path(top, path)? else {
        return Ok(None);
    };
    let stat = fstat(&found)?;
    Ok((!is_whiteout_stat(&stat)).then_some((found, stat)))
}

/// Names in a directory with their types. Nothing if it is not there.
pub(super) fn list(
    top: BorrowedFd<'_>,
    path: &Path,
    until: Instant,
) -> Result<Vec<(PathBuf, FileType)>, Errno> {
    let directory = match open_below(top, &c_path(path)?) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let (mut names, mut bytes) = (Vec::new(), 0);
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        bytes += name.to_bytes().len();
        if bytes > super::MAX_PENDING || Instant::now() >= until {
            break;
        }
        names.push((
            PathBuf::from(OsStr::from_bytes(name.to_bytes())),
            entry.file_type(),
        ));
    }
    Ok(names)
}

/// A path for the kernel; that of the top is `.`.
pub(super) fn c_path(path: &Path) -> Result<CString, Errno> {
    let bytes = path.as_os_str().as_bytes();
    CString::new(if bytes.is_empty() { b"." } else { bytes }).map_err(|_| Errno::INVAL)
}

/// Whether it is the mark that something was deleted.
pub(super) fn is_whiteout_stat(stat: &Stat) -> bool {
    type_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides that of the image.
pub(super) fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a file is as another one. `open` opens the first one for looks; `None` if it is gone.
pub(super) fn is_same(
    stat: &Stat,
    open: &dyn Fn() -> Result<Option<OwnedFd>, Errno>,
    (base, of_base): &(OwnedFd, Stat),
    until: Instant,
) -> Result<bool, Errno> {
    let identity = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    if identity(stat) != identity(of_base) {
        return Ok(false);
    }
    let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    match type_of(stat) {
        FileType::RegularFile if content(stat) != content(of_base) => return Ok(false),
        FileType::RegularFile | FileType::Directory | FileType::Symlink => {}
        _ => return Ok(stat.st_rdev == of_base.st_rdev),
    }
    let Some(file) = open()? else { return Ok(true) };
    match type_of(stat) {
        FileType::Symlink => {
            let target = |link| readlinkat(link, c"", Vec::new());
            Ok(target(&file)? == target(base)?)
        }
        FileType::Directory => {
            let (Some(one), Some(other)) = (reopen(&file)?, reopen(base)?) else {
                return Ok(false);
            };
            Ok(attributes(&one)? == attributes(&other)?)
        }
        _ => {
            let (Some(one), Some(other)) = (open_file(&file)?, open_file(base)?) else {
                return Ok(false);
            };
            Ok(attributes(&one)? == attributes(&other)? && is_same_content(one, other, until)?)
        }
    }
}

/// Whether a directory of the runtime layer is a copy: then the image has it, or the user made it.
/// (That of the upper directory says nothing: the kernel adds the mark there when it merges both.)
pub(super) fn is_copied_directory(directory: &OwnedFd, stat: &Stat) -> Result<bool, Errno> {
    if type_of(stat) != FileType::Directory {
        return Ok(false);
    }
    let Some(directory) = reopen(directory)? else {
        return Ok(false);
    };
    match fgetxattr(&directory, ORIGIN, &mut [0_u8; 0][..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Opens a directory for reading that is open for looks.
fn reopen(directory: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The extended attributes of a file, as far as they are the user's.
fn attributes(file: &OwnedFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut names = vec![0_u8; MAX_ATTRIBUTE];
    let length = match flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let (mut found, mut bytes) = (BTreeMap::new(), 0);
    let names = names[..length].split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty()) {
        if NOT_COMPARED.iter().any(|not| name.starts_with(not)) {
            continue;
        }
        let mut value = vec![0_u8; MAX_ATTRIBUTE];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e),
        }
        bytes += name.len() + value.len();
        if bytes > MAX_ATTRIBUTES {
            return Err(Errno::TOOBIG);
        }
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

/// Files that take too long to compare count as the same: their sizes and times are equal.
fn is_same_content(one: OwnedFd, other: OwnedFd, until: Instant) -> Result<bool, Errno> {
    let (mut one, mut other) = (File::from(one), File::from(other));
    let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
    while Instant::now() < until {
        let (length, same) = (fill(&mut one, &mut here)?, fill(&mut other, &mut there)?);
        if length != same || here[..length] != there[..same] {
            return Ok(false);
        }
        if length == 0 {
            break;
        }
    }
    Ok(true)
}

fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        }
    }
    Ok(length)
}
