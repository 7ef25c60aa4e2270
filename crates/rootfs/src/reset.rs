//! Deletes the data of a kept filesystem and leaves its record, which then says that this was meant.

use std::os::fd::AsFd;

use rustix::fs::fsync;
use rustix::io::Errno;

use crate::remove;
use crate::store::{Kept, StoreError};

/// Everything of a kept filesystem but its record.
const DATA: [&str; 4] = ["upper", "work", "new", "probe"];

impl Kept {
    /// Deletes what is kept, the record excepted. May be repeated. Follows no link and crosses no mount. The caller
    /// holds the lock and knows that nobody has it mounted.
    pub fn clear(&self) -> Result<(), StoreError> {
        let fail = |source: Errno| StoreError::System {
            what: "cannot delete the data of the kept filesystem",
            path: self.key().into(),
            source,
        };
        for name in DATA {
            remove::tree(self.as_fd(), name).map_err(fail)?;
        }
        let directory = rustix::fs::openat(
            self.as_fd(),
            ".",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(fail)?;
        fsync(&directory).map_err(fail)
    }
}
