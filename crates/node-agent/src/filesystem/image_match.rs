//! Whether an image may be put under the data that is there. Here invariant I1 is decided.

use std::path::Path;

use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{ImageFacts, RecoveryVerb};

use super::data::Data;
use super::failure::Failure;
use super::record::RecordDefect;

/// Whether this image may be used with what is there.
pub(super) fn check(
    directory: &Path,
    node: &str,
    image: &ImageFacts,
    known: Option<&ImageFacts>,
    data: &Data,
) -> Result<(), Failure> {
    let made_with = match (known, data) {
        (None, Data::Absent | Data::WithoutRecord) => return Ok(()),
        (_, Data::Recorded(record)) if record.resetting => return Ok(()),
        (_, Data::OtherDirectory) => return Err(Failure::other_directory(directory, node)),
        (_, Data::Defective(RecordDefect::Newer)) => return Err(Failure::outdated_agent(directory, node)),
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
        (Some(_), Data::WithoutRecord) => {
            return Err(Failure {
                reason: reason::FILESYSTEM_LOST,
                message: format!(
                    "the record of this instance is not on node {node} any more, and nothing else proves that the \
                     data in directory {} belongs to it. Restore the directory, or delete the object",
                    directory.display()
                ),
                verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
            });
        }
        (_, Data::Defective(defect)) => {
            let directory = directory.display();
            let what = match defect {
                RecordDefect::Unreadable | RecordDefect::Newer => {
                    format!("the record next to the data cannot be read (directory {directory})")
                }
                RecordDefect::Copied => format!(
                    "directory {directory} was copied without its extended attributes, which mark deleted files: \
                     deleted files of the image would come back. Restore it with them (rsync -aHAXS; tar --xattrs \
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
                "the data was made with image {name} ({id}), but the provider runs {} ({}); it cannot be used with \
                 another image. Set the template's image {old}",
                image.reference, image.id
            ),
            verbs: vec![RecoveryVerb::Accept, RecoveryVerb::Reset],
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rootfs::{Root, Store};

    use super::*;
    use crate::filesystem::data::look;
    use crate::filesystem::record::{DataRecord, FORMAT, is_newer};

    fn image(reference: &str, id: &str) -> ImageFacts {
        ImageFacts {
            reference: reference.into(),
            id: id.into(),
            ..ImageFacts::default()
        }
    }

    fn record(id: &str) -> DataRecord {
        DataRecord {
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
        check(Path::new("/data/u"), "node1", &image, known, data).err()
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
        assert_eq!(found(None, &Data::WithoutRecord), None);
    }

    #[test]
    fn i1_data_that_was_there_must_be_there() {
        let known = image("nginx:1.25", "sha256:1");
        assert_eq!(found(Some(&known), &Data::Absent), Some("FilesystemLost"));
        assert_eq!(found(Some(&known), &Data::WithoutRecord), Some("FilesystemLost"));
        assert_eq!(found(Some(&known), &recorded("sha256:1")), None);
    }

    /// Also without a status that remembers the data: the directory itself shows that something is
    /// wrong.
    #[test]
    fn i1_h26_data_whose_record_is_defective_is_its_users_to_judge() {
        let known = image("nginx:1.25", "sha256:1");
        for known in [None, Some(&known)] {
            for defect in [RecordDefect::Unreadable, RecordDefect::Copied] {
                let failure = failure(known, &Data::Defective(defect)).unwrap();
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
            verbs(&Data::WithoutRecord),
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
        let begun = DataRecord {
            resetting: true,
            ..record("sha256:2")
        };
        assert_eq!(found(Some(&image("x", "sha256:1")), &Data::Recorded(begun)), None);
    }

    #[test]
    fn i12_f25_the_way_back_is_named_as_a_registry_knows_it() {
        let of = |repo_digest: &str| {
            let record = DataRecord {
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
        assert_eq!(
            serde_json::from_slice::<DataRecord>(old).unwrap(),
            record("sha256:1")
        );
    }

    /// A disk that was not mounted at a reboot: its empty mount point made the data count as lost,
    /// or as removed when the object was deleted.
    #[test]
    fn i1_i11_another_directory_at_the_prefix_is_neither_lost_nor_removed() {
        let root = Root::of_this_thread().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let prefix = directory.path().join("kept");
        let look = |store: Option<&str>| look(&root, &prefix, "u1", store).unwrap();
        assert_eq!(look(None), Data::Absent, "of an object that never had data");
        assert_eq!(
            look(Some("of the disk")),
            Data::OtherDirectory,
            "not even the directory"
        );
        let store = Store::create(&root, &prefix).unwrap();
        assert_eq!(
            look(Some("of the disk")),
            Data::OtherDirectory,
            "an empty directory"
        );
        let like = rustix::fs::stat(&prefix).unwrap();
        store.create_key("u0", &like).unwrap();
        let here = store.identity().unwrap().unwrap();
        assert_eq!(
            look(Some("of the disk")),
            Data::OtherDirectory,
            "another directory"
        );
        assert_eq!(
            look(Some(&here)),
            Data::Absent,
            "removed before the agent could say so"
        );
        store.remove("u0").unwrap();
        store.create_key("u2", &like).unwrap();
        assert_eq!(store.identity().unwrap().as_ref(), Some(&here), "for ever");
        assert_eq!(store.keys().unwrap(), ["u2"], "the identity is not a key");

        let known = image("nginx:1.25", "sha256:1");
        let failure = failure(Some(&known), &Data::OtherDirectory).unwrap();
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
        let failure = failure(None, &Data::Defective(RecordDefect::Newer)).unwrap();
        assert_eq!((failure.reason, failure.verbs), ("NodeAgentOutdated", vec![]));
    }
}
