/*!
Objects as a watch holds them: each is trimmed while it is read, not after, and read on its own, so that one that does
not fit its type does not hide the others.

Every user can put our labels on a pod, and a pod may have 31,000 volumes: a watch does not hold fields that are not used.
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

/// Most objects that a list brings at a time: each may have the 1.5 MB that etcd takes, and a page is in memory as a whole.
pub const PAGE: u32 = 16;

/// What is kept of the objects of a watch.
pub trait Selection: Send + Sync + 'static {
    /// By field.
    const KEEP: Keep;
}

/// An object of which only the selection was read.
pub struct Trimmed<K, S> {
    object: Result<K, Unreadable>,
    selection: PhantomData<fn() -> S>,
}

/// An object that does not fit its type.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unreadable {
    /// Who it is.
    pub metadata: Box<ObjectMeta>,
    /// Why it cannot be read.
    pub error: String,
}

/// Of the metadata who the object is, whose it is, and what is ours. Not `managedFields`, which are often larger than the
/// object, and no other annotation: `kubectl apply` keeps the whole object once more in one.
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

/// Objects of ours: everything but foreign metadata. The template is text.
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
