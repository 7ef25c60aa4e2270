/*!
Deletes a directory tree that somebody else filled.

Follows no link, crosses no mount, and needs a bounded number of descriptors
however deep the tree is: what lies deep is first moved up.
*/

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags, ioctl_getflags, ioctl_setflags, openat2,
    renameat, unlinkat,
};
use rustix::io::Errno;

/// How deep descriptors are held open.
const MAX_DEPTH: usize = 64;

/// Deletes `name` below `parent`, whatever it is. Fine if it does not exist.
pub fn tree(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let Ok(name) = CString::new(name) else {
        return Err(Errno::INVAL);
    };
    let top = match open(parent, &name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(parent, &name, AtFlags::empty()),
        Err(e) => return Err(e),
    };
    let mut moved = 0;
    // Every round deletes at least one level of what earlier rounds moved up.
    while empty(&top, &top, 0, &mut moved)? {}
    unlink(parent, &name, AtFlags::REMOVEDIR)
}

/// Deletes what is in `directory`. Whether something was moved up to `top` instead.
fn empty(top: &OwnedFd, directory: &OwnedFd, depth: usize, moved: &mut u64) -> Result<bool, Errno> {
    let mut again = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            unlink(directory.as_fd(), name, AtFlags::empty())?;
            continue;
        }
        let below = match open(directory.as_fd(), name) {
            Ok(below) => below,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlink(directory.as_fd(), name, AtFlags::empty())?;
                continue;
            }
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        if depth >= MAX_DEPTH {
            *moved += 1;
            move_up(directory, name, &below, top, *moved)?;
            again = true;
            continue;
        }
        again |= empty(top, &below, depth + 1, moved)?;
        drop(below);
        unlink(directory.as_fd(), name, AtFlags::REMOVEDIR)?;
    }
    Ok(again)
}

fn move_up(from: &OwnedFd, name: &CStr, entry: &OwnedFd, top: &OwnedFd, number: u64) -> Result<(), Errno> {
    // A name of ours may exist already, by chance or by intent; then the next number is tried.
    for attempt in 0..1000_u64 {
        let target = format!(".deep-{}", number.wrapping_mul(1000).wrapping_add(attempt));
        match renameat(from, name, top, target) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(Errno::PERM) => {
                clear_flags(entry)?;
                clear_flags(from)?;
            }
            result => return result,
        }
    }
    Err(Errno::EXIST)
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(parent, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        // Immutable or append-only, itself or its directory.
        Err(Errno::PERM) => {
            let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            // Opening a device may have effects, and has no such flags to clear.
            if matches!(
                FileType::from_raw_mode(stat.st_mode),
                FileType::RegularFile | FileType::Directory
            ) {
                clear_flags(&rustix::fs::openat(parent, name, open, Mode::empty())?)?;
            }
            clear_flags(parent)?;
            unlinkat(parent, name, flags)
        }
        result => result,
    }
}

fn clear_flags(fd: impl AsFd) -> Result<(), Errno> {
    let flags = ioctl_getflags(&fd)?;
    let locks = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(locks) {
        ioctl_setflags(&fd, flags.difference(locks))
    } else {
        Ok(())
    }
}
