/*!
A pod as the cache holds it: as text, which is decoded for a pass only. The type has hundreds of
fields, most of them empty, so a decoded pod takes several times the memory of its text.
*/

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer};

/// A pod as text, with its namespace and name.
#[derive(Clone, Debug)]
pub struct HeldPod {
    key: ObjectMeta,
    text: Box<str>,
}

// === impl HeldPod ===

impl HeldPod {
    /// The pod.
    pub fn decode(&self) -> Option<Pod> {
        // The text was made from a pod.
        serde_json::from_str(&self.text)
            .inspect_err(|error| tracing::error!(name = self.name_any(), %error, "a pod cannot be decoded"))
            .ok()
    }
}

impl From<Pod> for HeldPod {
    fn from(pod: Pod) -> Self {
        let text = serde_json::to_string(&pod).unwrap_or_default();
        Self {
            key: ObjectMeta {
                name: pod.metadata.name,
                namespace: pod.metadata.namespace,
                ..ObjectMeta::default()
            },
            text: text.into_boxed_str(),
        }
    }
}

impl<'de> Deserialize<'de> for HeldPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pod::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for HeldPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        Pod::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        Pod::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        Pod::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        Pod::plural(dt)
    }

    /// Namespace and name alone.
    fn meta(&self) -> &ObjectMeta {
        &self.key
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.key
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn i18_a_held_pod_is_the_pod_that_was_read() {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "namespace": "team", "uid": "u", "resourceVersion": "5" },
            "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
        .unwrap();
        let held = HeldPod::from(pod.clone());
        assert_eq!(held.decode(), Some(pod));
        assert_eq!(
            (held.name_any().as_str(), held.namespace().as_deref()),
            ("web", Some("team"))
        );
    }
}
