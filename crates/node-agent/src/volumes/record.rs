/*!
What is published, on disk: unpublishing gets nothing from the kubelet but the volume's id, and a
restarted agent must serve the pods that it finds.

One file for each volume, replaced atomically and synced before anything is mounted.
*/

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rootfs::files;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::instance::ObjectRef;

/// Name of the file in the volume's directory.
const NAME: &str = "volume.json";
/// What it is called until it is complete.
const NEW: &str = "volume.json.new";
/// Largest file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A published volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeRecord {
    /// Where it is mounted on the node.
    pub(crate) target: PathBuf,
    /// The pod that it was published for.
    pub(crate) pod: ObjectRef,
    /// The instance of that pod.
    pub(crate) instance: ObjectRef,
    /// The pod's role.
    pub(crate) role: Role,
    /// The instance's `hostPathPrefix`.
    pub(crate) prefix: PathBuf,
    /// The one container of the pod that mounts the volume. Not in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<String>,
    /// The image that the pod was completed for, see [`ANNOTATION_IMAGE_ID`]. Not in pods and
    /// records of earlier versions.
    ///
    /// [`ANNOTATION_IMAGE_ID`]: stoppablecontainer_api::names::ANNOTATION_IMAGE_ID
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
}

/// The role of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Role {
    Provider,
    Consumer,
}

// === impl VolumeRecord ===

impl VolumeRecord {
    /// Reads the record of a volume's directory. `None` if there is none, or none that is
    /// understood.
    pub(crate) fn read(directory: impl AsFd) -> Result<Option<Self>> {
        let content = files::read(&directory, NAME, MAX_BYTES).context("read the record of a volume")?;
        let Some(content) = content else {
            return Ok(None);
        };
        match serde_json::from_slice(&content) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(%error, "the record of a volume is not valid");
                Ok(None)
            }
        }
    }

    /// Whether this is the other one, as far as it says.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let container = self.container.clone().or_else(|| other.container.clone());
        let image_id = self.image_id.clone().or_else(|| other.image_id.clone());
        *other
            == Self {
                container,
                image_id,
                ..self.clone()
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
        files::replace(directory, NAME, &content, None).context("write the record of a volume")
    }

    /// Removes what [`VolumeRecord::write`] made.
    pub(crate) fn remove(directory: &OwnedFd) -> Result<()> {
        for name in [NAME, NEW] {
            files::remove(directory, name).context("remove the record of a volume")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn record() -> VolumeRecord {
        let object = |name: &str| ObjectRef {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        };
        VolumeRecord {
            target: "/pods/x/mount".into(),
            pod: object("pod"),
            instance: object("instance"),
            role: Role::Consumer,
            prefix: "/data".into(),
            container: Some("main".into()),
            image_id: Some("sha256:1".into()),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        assert_eq!(VolumeRecord::read(&fd).unwrap(), None);
        record().write(&fd).unwrap();
        assert_eq!(VolumeRecord::read(&fd).unwrap(), Some(record()));
        VolumeRecord::remove(&fd).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        VolumeRecord::remove(&fd).unwrap();
    }

    /// Records as versions of the agent wrote them. These files never change; a new form gets a new
    /// one.
    const FIRST: &str = include_str!("record/2026-11-23.json");
    const SECOND: &str = include_str!("record/2026-12-01.json");
    const NOW: &str = include_str!("record/now.json");

    /// What the agents of 2026-11-23 read, by their source.
    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct First {
        target: PathBuf,
        pod: ObjectRef,
        instance: ObjectRef,
        role: Role,
        prefix: PathBuf,
    }

    #[test]
    fn f27_records_of_earlier_versions_are_read() {
        let now: VolumeRecord = serde_json::from_str(NOW).unwrap();
        assert_eq!(now.container.as_deref(), Some("main"));
        let second = VolumeRecord {
            image_id: None,
            ..now.clone()
        };
        let first = VolumeRecord {
            container: None,
            ..second.clone()
        };
        for (written, known) in [(FIRST, first), (SECOND, second)] {
            let read: VolumeRecord = serde_json::from_str(written).unwrap();
            assert_eq!(read, known);
            assert!(read.is_same(&now), "the kubelet may publish it again");
        }
    }

    /// After a downgrade the earlier agent serves the pods that it finds, and unpublishes them.
    #[test]
    fn f27_earlier_versions_read_the_records_of_this_one() {
        let now: VolumeRecord = serde_json::from_str(NOW).unwrap();
        let written = serde_json::to_value(&now).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(NOW).unwrap());
        let first: First = serde_json::from_value(written).unwrap();
        assert_eq!(first, serde_json::from_str(FIRST).unwrap());
    }

    #[test]
    fn f27_fields_of_a_later_version_are_ignored() {
        let mut later: serde_json::Value = serde_json::from_str(NOW).unwrap();
        for place in ["", "/pod", "/instance"] {
            later.pointer_mut(place).unwrap()["ofALaterVersion"] = serde_json::json!([1]);
        }
        let read: VolumeRecord = serde_json::from_value(later).unwrap();
        assert_eq!(read, serde_json::from_str(NOW).unwrap());
    }

    #[test]
    fn f20_a_torn_record_is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "{\"target\":\"/a").unwrap();
        let fd = OwnedFd::from(File::open(directory.path()).unwrap());
        assert_eq!(VolumeRecord::read(&fd).unwrap(), None);
    }
}
