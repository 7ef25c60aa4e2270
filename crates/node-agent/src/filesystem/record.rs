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
