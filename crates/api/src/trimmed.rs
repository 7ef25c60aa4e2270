/*!
Objects as a watch holds them. Each object is trimmed while it is read, not afterwards. Each is
decoded on its own, so one object that does not fit its type does not hide the others.

Every user can put the product's labels on a pod, and a pod may have 31,000 volumes. A watch
therefore holds only the fields that are used.
*/

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use kube::Resource;
use kube::core::{ObjectMeta, PartialObjectMeta};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use crate::json::{Json, Keep};
use crate::names::GROUP;

/// Maximum number of objects in a page of a list. An object may have the 1.5 MB that etcd stores,
/// and a whole page is in memory.
pub const PAGE: u32 = 16;

/// The fields of a watch's objects that are kept.
pub trait Selection: Send + Sync + 'static {
    /// The kept fields.
    const KEEP: Keep;
}

/// An object that was read with a selection of its fields.
pub struct Trimmed<K, S> {
    object: Result<K, Unreadable>,
    selection: PhantomData<fn() -> S>,
}

/// An object that does not fit its type.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unreadable {
    /// The object's metadata.
    pub metadata: Box<ObjectMeta>,
    /// Why the object cannot be decoded.
    pub error: String,
}

/// The metadata that identifies the object and its owner, and the product's labels and annotations.
/// `managedFields` are left out because they are often larger than the object. Other annotations
/// are left out because `kubectl apply` stores a copy of the object in one.
pub const METADATA: Keep = Keep::Fields(&[
    ("annotations", Keep::Prefixed(GROUP)),
    ("creationTimestamp", Keep::All),
    ("deletionGracePeriodSeconds", Keep::All),
    ("deletionTimestamp", Keep::All),
    ("finalizers", Keep::All),
    ("generation", Keep::All),
    ("labels", Keep::Prefixed(GROUP)),
    ("name", Keep::All),
    ("namespace", Keep::All),
    ("ownerReferences", Keep::First(32, &Keep::All)),
    ("resourceVersion", Keep::All),
    ("uid", Keep::All),
]);

/// The product's own kinds: everything except foreign metadata. The template stays text.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl Selection for Whole {
    const KEEP: Keep = Keep::Fields(&[
        ("apiVersion", Keep::All),
        ("kind", Keep::All),
        ("metadata", METADATA),
        ("spec", Keep::All),
        ("status", Keep::All),
    ]);
}

// === impl Trimmed ===

impl<K, S> Trimmed<K, S> {
    /// The object.
    ///
    /// # Errors
    /// When it does not fit its type.
    pub fn into_object(self) -> Result<K, Unreadable> {
        self.object
    }
}

impl<'de, K, S> Deserialize<'de> for Trimmed<K, S>
where
    K: DeserializeOwned + Resource,
    S: Selection,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::trimmed(deserializer, S::KEEP)?;
        let object = match serde_json::from_str(json.as_str()) {
            Ok(object) => Ok(object),
            Err(error) => {
                let known: PartialObjectMeta<K> =
                    serde_json::from_str(json.as_str()).map_err(D::Error::custom)?;
                Err(Unreadable {
                    metadata: Box::new(known.metadata),
                    error: error.to_string(),
                })
            }
        };
        Ok(Self {
            object,
            selection: PhantomData,
        })
    }
}

impl<K: Clone, S> Clone for Trimmed<K, S> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            selection: PhantomData,
        }
    }
}

impl<K: fmt::Debug, S> fmt::Debug for Trimmed<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

impl<K: Resource, S> Resource for Trimmed<K, S> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object
            .as_ref()
            .map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object
            .as_mut()
            .map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoppableContainer;
    use serde_json::json;

    #[test]
    fn i18_foreign_metadata_is_not_held() {
        let object: Trimmed<StoppableContainer, Whole> = serde_json::from_value(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": {
                "name": "n", "resourceVersion": "1", "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": {} } }],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "stoppablecontainer.xtlsoft.top/recovery": "x",
                },
            },
            "spec": { "running": true, "template": { "spec": { "new": 1 } } },
        }))
        .unwrap();
        let object = object.into_object().unwrap();
        assert_eq!(object.metadata.managed_fields, None);
        assert_eq!(object.metadata.annotations.unwrap().len(), 1);
        assert!(object.spec.running);
        assert_eq!(object.spec.template.json().as_str(), r#"{"spec":{"new":1}}"#);
    }

    #[test]
    fn an_object_that_does_not_fit_its_type_says_who_it_is() {
        let object: Trimmed<StoppableContainer, Whole> =
            serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": { "running": "x" } }))
                .unwrap();
        assert_eq!(object.meta().name.as_deref(), Some("n"));
        assert!(object.into_object().is_err());
    }
}
