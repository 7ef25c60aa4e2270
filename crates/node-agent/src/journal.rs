/*!
What is published, on disk: unpublishing gets nothing from the kubelet but the
volume's id, and a restarted agent must serve the pods that it finds.

One file for each volume, replaced atomically and synced before anything is
mounted.
*/

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Name of the file in the volume's directory.
const NAME: &str = "volume.json";
/// Largest file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A published volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Where it is mounted on the node.
    pub(crate) target: PathBuf,
    /// The pod that it was published for.
    pub(crate) pod: Object,
    /// The instance of that pod.
    pub(crate) instance: Object,
    /// What the pod is to the instance.
    pub(crate) role: Role,
    /// The instance's `hostPathPrefix`.
    pub(crate) prefix: PathBuf,
}

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a pod is to its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Role {
    Provider,
    Consumer,
}

// === impl Record ===

impl Record {
    /// Reads the record of a volume's directory. `None` if there is none, or none that is understood.
    pub(crate) fn read(directory: impl AsFd) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(&directory, NAME, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).context("open the record of a volume"),
        };
        let mut content = Vec::new();
        File::from(fd)
            .take(MAX_BYTES)
            .read_to_end(&mut content)
            .context("read the record of a volume")?;
        match serde_json::from_slice(&content) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(%error, "record of a volume is not understood");
                Ok(None)
            }
        }
    }

    /// Whether there is a record, understood or not.
    pub(crate) fn exists(directory: impl AsFd) -> Result<bool> {
        match rustix::fs::statat(&directory, NAME, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).context("examine the record of a volume"),
        }
    }

    /// Writes it, durably.
    pub(crate) fn write(&self, directory: &OwnedFd) -> Result<()> {
        let content = serde_json::to_vec(self).context("write the record of a volume")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = format!("{NAME}.new");
        let fd = openat(directory, new.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .context("make the record of a volume")?;
        let mut file = File::from(fd);
        file.write_all(&content).context("write the record of a volume")?;
        file.sync_all().context("sync the record of a volume")?;
        renameat(directory, new.as_str(), directory, NAME).context("name the record of a volume")?;
        fsync(directory).context("sync the directory of a volume")
    }

    /// Removes what [`Record::write`] made.
    pub(crate) fn remove(directory: &OwnedFd) -> Result<()> {
        for name in [NAME.to_owned(), format!("{NAME}.new")] {
            match unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e).context("remove the record of a volume"),
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record() -> Record {
        let object = |name: &str| Object {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        };
        Record {
            target: "/pods/x/mount".into(),
            pod: object("pod"),
            instance: object("instance"),
            role: Role::Consumer,
            prefix: "/data".into(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        assert_eq!(Record::read(&fd).unwrap(), None);
        record().write(&fd).unwrap();
        assert_eq!(Record::read(&fd).unwrap(), Some(record()));
        Record::remove(&fd).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        Record::remove(&fd).unwrap();
    }

    #[test]
    fn f20_a_torn_record_is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "{\"target\":\"/a").unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        assert_eq!(Record::read(&fd).unwrap(), None);
    }

    #[test]
    fn h14_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join(NAME)).unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        assert!(Record::read(&fd).is_err());
    }
}
