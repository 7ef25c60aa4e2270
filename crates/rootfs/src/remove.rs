/*!
Deletes a directory tree of untrusted content.

It follows no link and crosses no mount. It needs a bounded number of descriptors at any depth: deep
directories are moved up first.
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
/// Flags of what cannot be deleted, and of directories that nothing can be deleted from.
const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

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
    let mut cleared = false;
    for attempt in 0..1000_u64 {
        let target = format!(".deep-{}", number.wrapping_mul(1000).wrapping_add(attempt));
        match renameat(from, name, top, target) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            // Immutable or append-only; or the top wants everything that comes into it to be of its
            // quota's project.
            Err(Errno::PERM | Errno::XDEV) if !cleared => {
                clear_flags(entry, LOCKS)?;
                clear_flags(from, LOCKS)?;
                clear_flags(top, LOCKS | IFlags::PROJECT_INHERIT)?;
                cleared = true;
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
        // Immutable or append-only, itself or its directory. Only files and directories have flags
        // to clear.
        Err(Errno::PERM) => {
            let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let looked = rustix::fs::openat(parent, name, look, Mode::empty())?;
            if let Some(file) = crate::root::open_file(&looked)? {
                clear_flags(&file, LOCKS)?;
            }
            if let Ok(directory) = open(parent, name) {
                clear_flags(&directory, LOCKS)?;
            }
            clear_flags(parent, LOCKS)?;
            unlinkat(parent, name, flags)
        }
        result => result,
    }
}

fn clear_flags(fd: impl AsFd, locks: IFlags) -> Result<(), Errno> {
    let flags = ioctl_getflags(&fd)?;
    if flags.intersects(locks) {
        ioctl_setflags(&fd, flags.difference(locks))
    } else {
        Ok(())
    }
}
