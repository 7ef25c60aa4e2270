/*!
Disk usage of a kept filesystem, and the limit that the template sets.
*/

use k8s_openapi::api::core::v1::PodSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the resource whose limit is enforced.
const RESOURCE: &str = "ephemeral-storage";

/// Last measured disk usage of the files that were written on top of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemUsage {
    /// Used space on the node's disk, in bytes.
    pub bytes: i64,
    /// Number of files, directories and other entries.
    pub inodes: i64,
}

/// A filesystem whose usage exceeds its container's limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageExcess {
    /// The container.
    pub container: String,
    /// Its limit, as written in the pod.
    pub limit: String,
    /// The usage in bytes.
    pub bytes: i64,
}

// === impl StorageExcess ===

impl StorageExcess {
    /// Whether `usage` is more than `limit`.
    pub fn over(container: &str, limit: &str, usage: Option<FilesystemUsage>) -> Option<Self> {
        let bytes = usage?.bytes;
        (bytes > whole_quantity(limit)?).then(|| Self {
            container: container.to_owned(),
            limit: limit.to_owned(),
            bytes,
        })
    }
}

/// The `ephemeral-storage` limit of the container `name` of a pod.
pub fn storage_limit<'a>(pod: &'a PodSpec, name: &str) -> Option<&'a str> {
    let container = pod.containers.iter().find(|c| c.name == name)?;
    let limit = container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?;
    Some(&limit.0)
}

/// A quantity (`1.5Gi`, `2e3`) in whole units, rounded up as Kubernetes does. `None` if the text is
/// not a quantity.
pub fn whole_quantity(text: &str) -> Option<i64> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    // Exact up to 2^53 bytes, 8 PiB; a float that is too large ends at the largest integer.
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    Some((number * factor).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("0", 0),
            ("1500m", 2),
            ("1.5Ki", 1536),
            ("64Mi", 64 << 20),
            ("2Gi", 2 << 30),
            ("2G", 2_000_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("99999Ei", i64::MAX),
        ] {
            assert_eq!(whole_quantity(text), Some(expected), "{text}");
        }
        for text in ["", "Mi", "1x", "ten"] {
            assert_eq!(whole_quantity(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_more_than_the_limit_is_too_much() {
        let excess = |bytes| StorageExcess::over("main", "1Ki", Some(FilesystemUsage { bytes, inodes: 1 }));
        assert_eq!(excess(1024), None);
        let over = excess(1025).unwrap();
        assert_eq!(
            (over.container.as_str(), over.limit.as_str(), over.bytes),
            ("main", "1Ki", 1025)
        );
        assert_eq!(StorageExcess::over("main", "1Ki", None), None, "not measured yet");
    }

    #[test]
    fn each_container_has_a_limit_of_its_own() {
        let pod: PodSpec = serde_json::from_value(json!({ "containers": [
            { "name": "side", "resources": { "limits": { "ephemeral-storage": "1" } } },
            { "name": "main", "resources": { "limits": { "ephemeral-storage": "1Ki" } } },
            { "name": "free" },
        ]}))
        .unwrap();
        assert_eq!(storage_limit(&pod, "main"), Some("1Ki"));
        assert_eq!(storage_limit(&pod, "free"), None);
        assert_eq!(storage_limit(&pod, "none"), None);
    }
}
