//! The record next to the data: whose data it is, and which image lies under it.

use serde::{Deserialize, Serialize};

/// The form of records that this agent writes, and the newest that it understands.
pub(crate) const FORMAT: u32 = 1;
/// The features that records may require of an agent, see [`DataRecord::features`]. Nothing yet.
const FEATURES: [&str; 0] = [];

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataRecord {
    /// Form of the record. An agent leaves data alone whose record is of a newer form.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// Features that an agent has to know to handle the data. An agent that does not know one
    /// leaves the data alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) features: Vec<String>,
    /// Namespace and name of the instance, for an administrator who finds the directory.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Identity of the image that the data was made with.
    pub(crate) image_id: String,
    /// That image as it was named.
    pub(crate) image: String,
    /// That image by its digest. Empty if the digest is unknown.
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

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordDefect {
    /// It is not understood.
    Unreadable,
    /// It was written by a newer agent, and asks for more than this one knows.
    Newer,
    /// It was copied without its extended attributes. An overlay keeps in them what was deleted:
    /// without them, files that the user deleted or replaced would be back, those of the image.
    Copied,
}

/// Whether a record asks for more than this agent knows.
pub(super) fn is_newer(record: &[u8]) -> bool {
    serde_json::from_slice::<Form>(record).is_ok_and(|form| {
        form.format > FORMAT
            || form
                .features
                .iter()
                .any(|asked| !FEATURES.contains(&asked.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Records as versions of the agent wrote them. These files never change; a new form gets a new
    /// one.
    const FIRST: &str = include_str!("record/2026-11-23.json");
    const SECOND: &str = include_str!("record/2026-11-25.json");
    const NOW: &str = include_str!("record/format-1.json");

    /// What the agents of 2026-11-23 read, by their source.
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct First {
        namespace: String,
        name: String,
        image_id: String,
        image: String,
    }

    /// What the agents of 2026-11-25 read.
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Second {
        #[serde(flatten)]
        first: First,
        #[serde(default)]
        repo_digest: String,
        #[serde(default)]
        recovered: Option<String>,
        #[serde(default)]
        resetting: bool,
    }

    fn full() -> DataRecord {
        DataRecord {
            format: FORMAT,
            features: Vec::new(),
            namespace: "team".to_owned(),
            name: "dev".to_owned(),
            image_id: "sha256:1".to_owned(),
            image: "nginx:1.25".to_owned(),
            repo_digest: "docker.io/library/nginx@sha256:2".to_owned(),
            recovered: Some("4f2a".to_owned()),
            resetting: true,
        }
    }

    fn identity(record: &First) -> [&str; 4] {
        [&record.namespace, &record.name, &record.image_id, &record.image].map(String::as_str)
    }

    #[test]
    fn f27_records_of_earlier_versions_are_read() {
        let first = DataRecord {
            repo_digest: String::new(),
            recovered: None,
            resetting: false,
            ..full()
        };
        for (text, record) in [(FIRST, first), (SECOND, full()), (NOW, full())] {
            assert!(!is_newer(text.as_bytes()), "{text}");
            assert_eq!(serde_json::from_str::<DataRecord>(text).unwrap(), record);
        }
    }

    /// After a downgrade the earlier agent finds the data, its image and the user's decision.
    #[test]
    fn f27_earlier_versions_read_the_records_of_this_one() {
        let written = serde_json::to_string(&full()).unwrap();
        let expected = ["team", "dev", "sha256:1", "nginx:1.25"];
        let first: First = serde_json::from_str(&written).unwrap();
        assert_eq!(identity(&first), expected);
        let second: Second = serde_json::from_str(&written).unwrap();
        assert_eq!(identity(&second.first), expected);
        let known = (second.repo_digest, second.recovered, second.resetting);
        assert_eq!(known, (full().repo_digest, full().recovered, true));
    }

    /// A change of what is written is a new form: it needs a file of its own here, and an answer to
    /// what earlier agents do with it.
    #[test]
    fn f27_what_is_written_is_the_recorded_form() {
        let written = serde_json::to_value(full()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(NOW).unwrap());
    }

    #[test]
    fn f27_fields_of_a_later_version_are_ignored() {
        let mut later: Value = serde_json::from_str(NOW).unwrap();
        later["ofALaterVersion"] = serde_json::json!({ "a": [1] });
        assert!(!is_newer(later.to_string().as_bytes()));
        assert_eq!(serde_json::from_value::<DataRecord>(later).unwrap(), full());
    }
}
