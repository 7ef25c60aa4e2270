/*!
Owner references that make one object the controller of another.

Kind, group (of the apiVersion) and UID decide together: another group may have a kind of the same
name, and an earlier object may have had the same name. A reference alone does not authorise
anything (invariant I8): everybody who may change an object can put one in.
*/

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

/// The reference to the controller of `object`, if that is of kind `K`.
pub fn controller_of<K: Resource<DynamicType = ()>>(object: &impl Resource) -> Option<&OwnerReference> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    // Without the version: the reference stays when the API gets another one.
    let group = controller
        .api_version
        .rsplit_once('/')
        .map_or("", |(group, _)| group);
    let same_kind = controller.kind == K::kind(&()) && group == K::group(&());
    same_kind.then_some(controller)
}

/// Whether `owner` is the controller of `object`.
pub fn is_controlled_by<K: Resource<DynamicType = ()>>(object: &impl Resource, owner: &K) -> bool {
    let uid = owner.meta().uid.as_ref();
    controller_of::<K>(object).is_some_and(|controller| Some(&controller.uid) == uid)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::StoppableContainerInstance;

    #[test]
    fn i8_kind_group_and_uid_make_an_owner() {
        let instance: StoppableContainerInstance = serde_json::from_value(json!({
            "metadata": { "name": "web", "uid": "u" },
            "spec": { "stoppableContainerName": "web", "template": {} },
        }))
        .unwrap();
        let owner = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "name": "web", "uid": "u", "controller": true,
        });
        let with = |field: &str, value: serde_json::Value| {
            let mut owner = owner.clone();
            owner[field] = value;
            let pod: Pod =
                serde_json::from_value(json!({ "metadata": { "ownerReferences": [owner] } })).unwrap();
            is_controlled_by(&pod, &instance)
        };
        assert!(with("name", json!("web")));
        assert!(!with("uid", json!("v")));
        assert!(!with("kind", json!("Deployment")));
        assert!(with("apiVersion", json!("stoppablecontainer.xtlsoft.top/v1")));
        assert!(!with("apiVersion", json!("apps/v1")));
        assert!(!with("apiVersion", json!("v1")));
        assert!(!with("controller", json!(false)));
    }
}
