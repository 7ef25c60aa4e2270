//! Owner, mode and time of what was made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown, futimens, utimensat,
};
use rustix::io::Errno;

use super::Unpack;

#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

// === impl Unpack ===

impl Unpack<'_> {
    pub(super) fn attributes(&mut self, file: impl AsFd, attributes: Attributes) -> Result<(), Errno> {
        let file = file.as_fd();
        if self.keep.owners {
            let owner = (
                Some(Uid::from_raw(attributes.uid)),
                Some(Gid::from_raw(attributes.gid)),
            );
            match fchown(file, owner.0, owner.1) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL) => self.without_owners(),
                Err(error) => return Err(error),
            }
        }
        // After the owner, whose change removes these bits. With another owner they would let
        // everybody act as the wrong user.
        let set_id = self.keep.owners && self.keep.set_id && self.keep.modes;
        let mut mode = Mode::from_raw_mode(attributes.mode & if set_id { 0o7777 } else { 0o1777 });
        if !self.keep.modes {
            mode = (mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)).difference(self.umask);
        }
        fchmod(file, mode)?;
        futimens(file, &times(attributes))
    }

    /// Of what cannot be opened. Its time and owner matter little enough to go on without them.
    pub(super) fn attributes_of_link(&mut self, parent: &OwnedFd, own: &[u8], attributes: Attributes) {
        if self.keep.owners {
            let owner = (
                Some(Uid::from_raw(attributes.uid)),
                Some(Gid::from_raw(attributes.gid)),
            );
            if chownat(parent, own, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                self.without_owners();
            }
        }
        let _ = utimensat(parent, own, &times(attributes), AtFlags::SYMLINK_NOFOLLOW);
    }

    fn without_owners(&mut self) {
        self.keep.owners = false;
        self.watch
            .note("owners are not kept: the user may not set them; files belong to the user".to_owned());
    }
}

pub(super) fn id(value: u64) -> io::Result<u32> {
    // The highest number means "no change" to the kernel.
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| io::Error::other("a number of a user that does not exist"))
}

fn times(attributes: Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: attributes.mtime,
            tv_nsec: 0,
        },
    }
}
