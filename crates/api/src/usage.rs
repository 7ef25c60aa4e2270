/*!
What a kept filesystem takes on its node, and what the template allows it.
*/

use k8s_openapi::api::core::v1::PodSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the resource whose limit is held.
const RESOURCE: &str = "ephemeral-storage";

/// What was written over the image, as last measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemUsage {
    /// Space on the node's disk, in bytes.
    pub bytes: i64,
    /// Files, directories and all other entries.
    pub inodes: i64,
}

/// A filesystem that takes more than its container may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageExcess {
    /// The container.
    pub container: String,
    /// Its limit, as written.
    pub limit: String,
    /// What is taken, in bytes.
    pub bytes: i64,
}

// === impl StorageExcess ===

impl StorageExcess {
    /// Whether `usage` is more than the `ephemeral-storage` limit of the container `main` in a pod, by default its
    /// first one.
    pub fn of(pod: &PodSpec, main: Option<&str>, usage: Option<FilesystemUsage>) -> Option<Self> {
        let container = match main {
            Some(name) => pod.containers.iter().find(|c| c.name == name),
            None => pod.containers.first(),
        }?;
        let limit = container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?;
        let bytes = usage?.bytes;
        (bytes > whole_quantity(&limit.0)?).then(|| Self {
            container: container.name.clone(),
            limit: limit.0.clone(),
            bytes,
        })
    }
}

/// A quantity (`1.5Gi`, `2e3`) in whole units, rounded up as Kubernetes does. `None` if it is not one.
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
    fn only_more_than_the_limit_of_the_main_container_is_too_much() {
        let pod: PodSpec = serde_json::from_value(json!({ "containers": [
            { "name": "main", "resources": { "limits": { "ephemeral-storage": "1Ki" } } },
            { "name": "side", "resources": { "limits": { "ephemeral-storage": "1" } } },
            { "name": "free" },
        ]}))
        .unwrap();
        let excess = |main, bytes| StorageExcess::of(&pod, main, Some(FilesystemUsage { bytes, inodes: 1 }));
        assert_eq!(excess(None, 1024), None);
        let over = excess(None, 1025).unwrap();
        assert_eq!(
            (over.container.as_str(), over.limit.as_str(), over.bytes),
            ("main", "1Ki", 1025)
        );
        assert_eq!(excess(Some("free"), 1 << 40), None);
        assert_eq!(StorageExcess::of(&pod, None, None), None, "not measured yet");
    }
}
