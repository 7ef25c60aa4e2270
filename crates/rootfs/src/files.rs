/*!
Small files in directories that only root can change: read without following links, and replaced
atomically and durably.

Only root on the node or a restored backup can put another kind of file there. That is an error
without further effect: no link is followed, and no call blocks on a FIFO.
*/

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, fstat, fsync, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

/// Extended attribute of files that were made by [`replace`] with a seal. In the namespace of those
/// that overlay file systems depend on, so that a copy which lost one lost the other (xattr(7),
/// "Trusted extended attributes").
const SEAL: &str = "trusted.stoppablecontainer.seal";

/// The content of the file `name`, of at most `max` bytes. `None` if there is none.
///
/// # Errors
/// `ELOOP` for a link, `EISDIR` for a directory, `EINVAL` or `ENXIO` for anything else that is no
/// regular file, and `EFBIG` for one that is larger.
pub fn read(directory: impl AsFd, name: &str, max: u64) -> Result<Option<Vec<u8>>, Errno> {
    let Some(fd) = open(directory, name)? else {
        return Ok(None);
    };
    let mut content = Vec::new();
    File::from(fd)
        .take(max + 1)
        .read_to_end(&mut content)
        .map_err(|e| errno(&e))?;
    if content.len() as u64 > max {
        return Err(Errno::FBIG);
    }
    Ok(Some(content))
}

/// Replaces the file `name`: after this it has `content`, and whatever happens on the way, it has
/// that or what it had before. `seal` is kept with it, see [`is_sealed`].
///
/// # Errors
/// As the kernel has them. `ENOTSUP` where the file system keeps no extended attributes and there
/// is a seal.
pub fn replace(directory: impl AsFd, name: &str, content: &[u8], seal: Option<&str>) -> Result<(), Errno> {
    let new = format!("{name}.new");
    remove(&directory, &new)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?;
    if let Some(seal) = seal {
        fsetxattr(&fd, SEAL, seal.as_bytes(), XattrFlags::empty())?;
    }
    let mut file = File::from(fd);
    file.write_all(content).map_err(|e| errno(&e))?;
    file.sync_all().map_err(|e| errno(&e))?;
    renameat(&directory, &new, &directory, name)?;
    fsync(&directory)
}

/// Whether the file `name` has this seal. A copy made without extended attributes has none.
///
/// # Errors
/// As for [`read`].
pub fn is_sealed(directory: impl AsFd, name: &str, seal: &str) -> Result<bool, Errno> {
    let Some(fd) = open(directory, name)? else {
        return Ok(false);
    };
    let mut value = [0; 256];
    match fgetxattr(&fd, SEAL, &mut value[..]) {
        Ok(length) => Ok(value.get(..length) == Some(seal.as_bytes())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes what [`replace`] made. Does nothing where nothing is.
///
/// # Errors
/// As the kernel has them; `EISDIR` for a directory.
pub fn remove(directory: impl AsFd, name: &str) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Opens the regular file `name` for reading. `None` if nothing is there. Nothing else is opened.
///
/// # Errors
/// As for [`read`].
pub fn open(directory: impl AsFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    // A look before the open: opening a device may have effects, and opening a FIFO may take as
    // long as it likes.
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let looked = match openat(directory, name, look, Mode::empty()) {
        Ok(looked) => looked,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e),
    };
    if let Some(file) = crate::root::open_file(&looked)? {
        return Ok(Some(file));
    }
    match FileType::from_raw_mode(fstat(&looked)?.st_mode) {
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::mkfifoat;

    use super::*;

    /// Puts something at a path.
    type Plant<'a> = &'a dyn Fn(&std::path::Path);

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap().into();
        (directory, fd)
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_removed() {
        let (path, fd) = directory();
        assert_eq!(read(&fd, "x", 10).unwrap(), None);
        for content in ["one", "two"] {
            replace(&fd, "x", content.as_bytes(), None).unwrap();
            assert_eq!(read(&fd, "x", 10).unwrap().unwrap(), content.as_bytes());
        }
        assert_eq!(read(&fd, "x", 2), Err(Errno::FBIG));
        // The rest of an attempt that was cut short.
        fs::write(path.path().join("x.new"), "to").unwrap();
        replace(&fd, "x", b"three", None).unwrap();
        remove(&fd, "x").unwrap();
        remove(&fd, "x").unwrap();
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
    }

    /// Whatever lies where a file of ours should: nothing is followed, nothing waited for, nothing
    /// of it changed.
    #[test]
    fn h14_links_fifos_sockets_and_directories_in_the_place_of_files() {
        let (outside, _) = directory();
        let target = outside.path().join("target");
        let plants: [(&str, Plant<'_>); 5] = [
            ("link", &|path| symlink(&target, path).unwrap()),
            ("dangling", &|path| symlink("/nowhere/at/all", path).unwrap()),
            ("fifo", &|path| {
                mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
            }),
            ("socket", &|path| drop(UnixListener::bind(path).unwrap())),
            ("directory", &|path| fs::create_dir(path).unwrap()),
        ];
        for (what, plant) in plants {
            fs::write(&target, "theirs").unwrap();
            for name in ["x", "x.new"] {
                let (path, fd) = directory();
                plant(&path.path().join(name));
                let content = read(&fd, "x", 10);
                assert!(name == "x.new" || content.is_err(), "{what}: {content:?}");
                let sealed = is_sealed(&fd, "x", "seal");
                assert!(!sealed.unwrap_or(false), "{what}");
                match replace(&fd, "x", b"ours", None) {
                    Ok(()) => assert_eq!(read(&fd, "x", 10).unwrap().unwrap(), b"ours", "{what}"),
                    Err(error) => assert_eq!((what, error), ("directory", Errno::ISDIR)),
                }
                assert_eq!(fs::read(&target).unwrap(), b"theirs", "{what}");
            }
        }
    }

    #[test]
    fn h26_a_copy_without_extended_attributes_has_no_seal() {
        let (path, fd) = directory();
        replace(&fd, "x", b"content", Some("one")).unwrap();
        assert!(is_sealed(&fd, "x", "one").unwrap());
        assert!(!is_sealed(&fd, "x", "two").unwrap(), "of something else");
        let content = fs::read(path.path().join("x")).unwrap();
        fs::write(path.path().join("copy"), content).unwrap();
        assert!(!is_sealed(&fd, "copy", "one").unwrap());
        assert!(!is_sealed(&fd, "nothing", "one").unwrap());
    }
}
