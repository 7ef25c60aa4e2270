//! Deletes the data of a kept filesystem and leaves its record, which shows then that the deletion
//! was intended.

use std::os::fd::AsFd;

use rustix::fs::fsync;
use rustix::io::Errno;

use super::{Kept, StoreError};
use crate::remove;

/// Everything of a kept filesystem but its record.
const DATA: [&str; 6] = ["upper", "work", "new", "probe", "runtime", "covered"];

impl Kept {
    /// Deletes what is kept, the record excepted. May be repeated. Follows no link and crosses no
    /// mount. The caller holds the lock and knows that it is not mounted.
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use crate::{Root, Store};

    /// The data goes, in whatever state it is, and nothing else: neither what it links to nor the
    /// record.
    #[test]
    fn i1_a_reset_deletes_the_data_and_keeps_the_record() {
        // Not in /tmp, which may be a tmpfs.
        let top = tempfile::tempdir_in("/var/tmp").unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("file"), "theirs").unwrap();
        let root = Root::of_this_thread().unwrap();
        let store = Store::create(&root, &top.path().join("data")).unwrap();
        let stat = rustix::fs::stat(top.path()).unwrap();
        let kept = store.create_key("one", &stat).unwrap();
        kept.set_record(b"decided").unwrap();
        let upper = top.path().join("data/one/upper");
        fs::create_dir_all(upper.join("a/b")).unwrap();
        symlink(other.path(), upper.join("a/link")).unwrap();
        for _ in 0..2 {
            kept.clear().unwrap();
            assert!(!kept.has_upper().unwrap());
            assert_eq!(kept.record().unwrap().unwrap(), b"decided");
        }
        assert!(other.path().join("file").exists());
        let again = store.create_key("one", &stat).unwrap();
        assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);
        assert_eq!(again.record().unwrap().unwrap(), b"decided");
    }
}
