/*!
What lies in the directory of a kept filesystem, and whether an image may be put
under it. Here invariant I1 is decided.
*/

use std::path::Path;

use anyhow::{Context, Result, bail};
use rootfs::namespace::Visitor;
use rootfs::store::Locked;
use rootfs::{AttachError, Kept, Root, Store, holders};
use serde::{Deserialize, Serialize};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{ImageFacts, RecoveryVerb};

use crate::node::host::Host;

/// Why a filesystem cannot be used: what goes into its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// What the user may decide.
    pub(crate) verbs: Vec<RecoveryVerb>,
}

/// The form of records that this agent writes, and the newest that it understands.
pub(crate) const FORMAT: u32 = 1;
/// The features that records may require of an agent, see [`Record::features`]. Nothing yet.
const FEATURES: [&str; 0] = [];

/// What is remembered next to the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Form of the record. An agent leaves data alone whose record is of a newer form.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// Features that an agent has to know to handle the data. An agent that does not know one leaves the data alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) features: Vec<String>,
    /// Of the instance, for whoever finds the directory.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Identity of the image that the data was made with.
    pub(crate) image_id: String,
    /// That image as it was named.
    pub(crate) image: String,
    /// That image as it can be named for ever. Empty if nobody knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) repo_digest: String,
    /// The failure that the user last decided on, by its identifier. An identifier is used once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recovered: Option<String>,
    /// The user decided to delete the data, and that is not finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) resetting: bool,
}

/// The part of a record that all forms have.
#[derive(Deserialize)]
struct Form {
    #[serde(default = "first_format")]
    format: u32,
    #[serde(default)]
    features: Vec<String>,
}

fn first_format() -> u32 {
    1
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing.
    Absent,
    /// Nothing, and the directory is not the one that held the data.
    OutOfReach,
    /// Data without a record: nothing says whose it is and what it was made with.
    Unproven,
    /// Data with a record that cannot be what was recorded here.
    Doubtful(Doubt),
    /// Data, or the order to delete it, with its record.
    Recorded(Record),
}

/// What is the matter with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It is not understood.
    Unreadable,
    /// It was written by a newer agent, and asks for more than this one knows.
    Newer,
    /// It was copied without its extended attributes. An overlay keeps in them what was deleted: without them, files
    /// that the user deleted or replaced would be back, those of the image.
    Copied,
}

/// Looks at the data without changing it; `root` is the node's. `store` identifies the directory that holds the data, if
/// that is known.
pub(crate) fn look(root: &Root, prefix: &Path, key: &str, store: Option<&str>) -> Result<Data> {
    let found = Store::open(root, prefix)?;
    let same = match (&found, store) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(found), Some(store)) => found.identity()?.as_deref() == Some(store),
    };
    // Data that is there is judged by its record, wherever it came from.
    Ok(match found.map(|found| look_into(&found, key)).transpose()? {
        None | Some(Data::Absent) if !same => Data::OutOfReach,
        None => Data::Absent,
        Some(data) => data,
    })
}

fn look_into(store: &Store, key: &str) -> Result<Data> {
    let Some(kept) = store.get(key)? else {
        return Ok(Data::Absent);
    };
    let record = kept.record()?;
    if record.as_deref().is_some_and(is_newer) {
        return Ok(Data::Doubtful(Doubt::Newer));
    }
    let understood = record
        .as_ref()
        .and_then(|record| serde_json::from_slice::<Record>(record).ok());
    let genuine = record.is_some() && kept.is_genuine()?;
    Ok(match understood {
        Some(begun) if genuine && begun.resetting => Data::Recorded(begun),
        _ if !kept.has_upper()? => Data::Absent,
        _ if record.is_none() => Data::Unproven,
        Some(record) if genuine => Data::Recorded(record),
        Some(_) => Data::Doubtful(Doubt::Copied),
        None => Data::Doubtful(Doubt::Unreadable),
    })
}

/// Whether a record asks for more than this agent knows.
fn is_newer(record: &[u8]) -> bool {
    serde_json::from_slice::<Form>(record).is_ok_and(|form| {
        form.format > FORMAT
            || form
                .features
                .iter()
                .any(|asked| !FEATURES.contains(&asked.as_str()))
    })
}

/// Whether this image may be used with what is there.
pub(crate) fn compare(
    directory: &Path,
    node: &str,
    image: &ImageFacts,
    known: Option<&ImageFacts>,
    data: &Data,
) -> Result<(), Failure> {
    let made_with = match (known, data) {
        (None, Data::Absent | Data::Unproven) => return Ok(()),
        (_, Data::Recorded(record)) if record.resetting => return Ok(()),
        (_, Data::OutOfReach) => return Err(out_of_reach(directory, node)),
        (_, Data::Doubtful(Doubt::Newer)) => return Err(outdated(directory, node)),
        (Some(_), Data::Absent) => {
            return Err(Failure {
                reason: reason::FILESYSTEM_LOST,
                message: format!(
                    "the data of this instance is not on node {node} any more (directory {}); it is not started on \
                     an empty filesystem. Restore the directory, or delete the object",
                    directory.display()
                ),
                verbs: vec![RecoveryVerb::Reset],
            });
        }
        (Some(_), Data::Unproven) => {
            return Err(Failure {
                reason: reason::FILESYSTEM_LOST,
                message: format!(
                    "the record of this instance is not on node {node} any more, and nothing else says that the data \
                     in directory {} is its own. Restore the directory, or delete the object",
                    directory.display()
                ),
                verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
            });
        }
        (_, Data::Doubtful(doubt)) => {
            let directory = directory.display();
            let what = match doubt {
                Doubt::Unreadable | Doubt::Newer => {
                    format!("the record next to the data cannot be read (directory {directory})")
                }
                Doubt::Copied => format!(
                    "directory {directory} was copied without its extended attributes, which say what was deleted: files \
                     of the image would be back. Restore it with them (rsync -aHAXS; tar --xattrs \
                     --xattrs-include='*')"
                ),
            };
            return Err(Failure {
                reason: reason::FILESYSTEM_LOST,
                message: format!("{what}; restore the directory on node {node}, or delete the object"),
                verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
            });
        }
        (_, Data::Recorded(record)) => record,
    };
    let (name, id) = (&made_with.image, &made_with.image_id);
    if *id != image.id {
        let old = match made_with.repo_digest.as_str() {
            "" => "to that one again".to_owned(),
            digest => format!("to {digest}"),
        };
        return Err(Failure {
            reason: reason::IMAGE_CHANGED,
            message: format!(
                "the data was made with image {name} ({id}), but the provider runs {} ({}); it is not put on another \
                 image. Set the template's image {old}",
                image.reference, image.id
            ),
            verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
        });
    }
    Ok(())
}

/// The directory is another one than held the data.
pub(crate) fn out_of_reach(directory: &Path, node: &str) -> Failure {
    let prefix = directory.parent().unwrap_or(directory);
    Failure {
        reason: reason::FILESYSTEM_UNREACHABLE,
        message: format!(
            "directory {} of node {node} is not the one that holds the data of this instance; a disk that is not mounted \
             looks like this. Mount it, and the instance goes on by itself",
            prefix.display()
        ),
        verbs: vec![RecoveryVerb::Reset],
    }
}

/// A newer agent wrote the record.
pub(crate) fn outdated(directory: &Path, node: &str) -> Failure {
    Failure::new(
        reason::NODE_AGENT_OUTDATED,
        format!(
            "the data in directory {} of node {node} was last handled by a newer node agent; update the node agent there",
            directory.display()
        ),
    )
}

/// Locks data that nobody uses. An error is worth another try.
pub(crate) fn lock_unused(host: &Host, kept: &Kept) -> Result<Locked> {
    let locked = kept.lock()?;
    if kept.has_upper()? {
        let used = Visitor::run(|visitor| {
            visitor
                .enter(&host.namespace)
                .context("enter the node's mount namespace")?;
            Ok::<_, anyhow::Error>(holders::probe(visitor, kept)?)
        });
        match used.context("start a thread")?? {
            holders::Use::Free => {}
            holders::Use::Unproven => bail!(AttachError::Unproven),
            holders::Use::Held => match holders::find(&host.proc, kept.key())?
                .iter()
                .find(|holder| holder.is_believed)
            {
                Some(holder) => bail!("process {} still uses the data", holder.process.id()),
                None => bail!("the kernel still uses the data"),
            },
        }
    }
    Ok(locked)
}

// === impl Failure ===

impl Failure {
    /// A failure that the user cannot decide away.
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            verbs: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, id: &str) -> ImageFacts {
        ImageFacts {
            reference: reference.into(),
            id: id.into(),
            ..ImageFacts::default()
        }
    }

    fn record(id: &str) -> Record {
        Record {
            namespace: "ns".into(),
            name: "web".into(),
            image_id: id.into(),
            image: "nginx:1.25".into(),
            repo_digest: String::new(),
            recovered: None,
            resetting: false,
            format: FORMAT,
            features: Vec::new(),
        }
    }

    fn failure(known: Option<&ImageFacts>, data: &Data) -> Option<Failure> {
        let image = image("nginx:1.25", "sha256:1");
        compare(Path::new("/data/u"), "node1", &image, known, data).err()
    }

    fn found(known: Option<&ImageFacts>, data: &Data) -> Option<&'static str> {
        failure(known, data).map(|failure| failure.reason)
    }

    fn recorded(id: &str) -> Data {
        Data::Recorded(record(id))
    }

    #[test]
    fn i1_the_first_time_anything_is_fine() {
        assert_eq!(found(None, &Data::Absent), None);
        // Made by an agent that died before it wrote the record.
        assert_eq!(found(None, &Data::Unproven), None);
    }

    #[test]
    fn i1_data_that_was_there_must_be_there() {
        let known = image("nginx:1.25", "sha256:1");
        assert_eq!(found(Some(&known), &Data::Absent), Some("FilesystemLost"));
        assert_eq!(found(Some(&known), &Data::Unproven), Some("FilesystemLost"));
        assert_eq!(found(Some(&known), &recorded("sha256:1")), None);
    }

    /// Also where nobody remembers that there was data: the directory itself says that something is wrong.
    #[test]
    fn i1_h26_data_whose_record_is_doubtful_is_its_users_to_judge() {
        let known = image("nginx:1.25", "sha256:1");
        for known in [None, Some(&known)] {
            for doubt in [Doubt::Unreadable, Doubt::Copied] {
                let failure = failure(known, &Data::Doubtful(doubt)).unwrap();
                assert_eq!(failure.reason, "FilesystemLost");
                assert_eq!(failure.verbs, [RecoveryVerb::Accept, RecoveryVerb::Reset]);
            }
        }
    }

    #[test]
    fn i1_what_is_not_there_cannot_be_accepted() {
        let known = image("nginx:1.25", "sha256:1");
        let verbs = |data| failure(Some(&known), data).unwrap().verbs;
        assert_eq!(verbs(&Data::Absent), [RecoveryVerb::Reset]);
        assert_eq!(
            verbs(&Data::Unproven),
            [RecoveryVerb::Accept, RecoveryVerb::Reset]
        );
    }

    #[test]
    fn f25_another_image_is_never_put_under_the_data() {
        assert_eq!(found(None, &recorded("sha256:2")), Some("ImageChanged"));
        assert_eq!(
            found(Some(&image("x", "sha256:1")), &recorded("sha256:2")),
            Some("ImageChanged")
        );
        // The record lies next to the data, so it is the one that counts.
        assert_eq!(found(Some(&image("x", "sha256:2")), &recorded("sha256:1")), None);
    }

    #[test]
    fn i9_a_reset_that_was_begun_is_finished_whatever_the_image() {
        let begun = Record {
            resetting: true,
            ..record("sha256:2")
        };
        assert_eq!(found(Some(&image("x", "sha256:1")), &Data::Recorded(begun)), None);
    }

    #[test]
    fn i12_f25_the_way_back_is_named_as_a_registry_knows_it() {
        let of = |repo_digest: &str| {
            let record = Record {
                repo_digest: repo_digest.into(),
                ..record("sha256:2")
            };
            failure(None, &Data::Recorded(record)).unwrap().message
        };
        assert!(
            of("docker.io/library/nginx@sha256:9").ends_with("image to docker.io/library/nginx@sha256:9")
        );
        assert!(of("").ends_with("image to that one again"));
    }

    #[test]
    fn records_of_earlier_versions_are_read() {
        let old = br#"{"namespace":"ns","name":"web","imageId":"sha256:1","image":"nginx:1.25"}"#;
        assert_eq!(serde_json::from_slice::<Record>(old).unwrap(), record("sha256:1"));
    }

    /// A disk that was not mounted at a reboot: its empty mount point made the data count as lost, or as removed when the
    /// object was deleted.
    #[test]
    fn i1_i11_another_directory_at_the_prefix_is_neither_lost_nor_removed() {
        let root = Root::of_this_thread().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let prefix = directory.path().join("kept");
        let look = |store: Option<&str>| look(&root, &prefix, "u1", store).unwrap();
        assert_eq!(look(None), Data::Absent, "of an object that never had data");
        assert_eq!(
            look(Some("of the disk")),
            Data::OutOfReach,
            "not even the directory"
        );
        let store = Store::create(&root, &prefix).unwrap();
        assert_eq!(look(Some("of the disk")), Data::OutOfReach, "an empty directory");
        let like = rustix::fs::stat(&prefix).unwrap();
        store.create_key("u0", &like).unwrap();
        let here = store.identity().unwrap().unwrap();
        assert_eq!(look(Some("of the disk")), Data::OutOfReach, "another directory");
        assert_eq!(
            look(Some(&here)),
            Data::Absent,
            "removed before the agent could say so"
        );
        store.remove("u0").unwrap();
        store.create_key("u2", &like).unwrap();
        assert_eq!(store.identity().unwrap().as_ref(), Some(&here), "for ever");
        assert_eq!(store.keys().unwrap(), ["u2"], "it is no key");

        let known = image("nginx:1.25", "sha256:1");
        let failure = failure(Some(&known), &Data::OutOfReach).unwrap();
        assert_eq!(failure.reason, "FilesystemUnreachable");
        assert!(
            failure.message.starts_with("directory /data of node node1"),
            "{failure:?}"
        );
    }

    #[test]
    fn f27_what_a_newer_agent_recorded_is_left_alone() {
        for (record, newer) in [
            (r#"{"namespace":"ns"}"#, false),
            (r#"{"format":1,"features":[],"anything":7}"#, false),
            (r#"{"format":2}"#, true),
            (r#"{"format":1,"features":["onClaim"]}"#, true),
            ("not a record", false),
        ] {
            assert_eq!(is_newer(record.as_bytes()), newer, "{record}");
        }
        let failure = failure(None, &Data::Doubtful(Doubt::Newer)).unwrap();
        assert_eq!((failure.reason, failure.verbs), ("NodeAgentOutdated", vec![]));
    }
}
