/*!
Admission of pods: the product's own rewrite of consumers, decided on the newest objects, the quota,
and a namespace that ends.
*/

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;
use stoppablecontainer::rewrite::{Facts, Wrapper, rewrite};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::names::{LABEL_ROLE, ROLE_CONSUMER};

use super::kind::{Key, Kind};
use super::store::{Refusal, is_deleting};
use crate::world::{World, controller};

/// What is stored of an object that is to be created.
pub(super) fn admit(world: &World, kind: Kind, object: Value) -> Result<Value, Refusal> {
    if world.namespace_ends && kind.is_namespaced() {
        let message = "the namespace is being terminated".to_owned();
        return Err(Refusal::new(403, "Forbidden", message));
    }
    if kind != Kind::Pod {
        return Ok(object);
    }
    let object = if object["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER {
        rewritten(world, &object)?
    } else {
        object
    };
    let pods = world.store.of_kind(Kind::Pod).count();
    if world.quota.is_some_and(|most| pods >= most) {
        return Err(Refusal::new(
            403,
            "Forbidden",
            "pods is forbidden: exceeded quota: small",
        ));
    }
    Ok(object)
}

fn rewritten(world: &World, object: &Value) -> Result<Value, Refusal> {
    let denied = |code, why: String| {
        Refusal::new(
            code,
            "Denied",
            format!("admission webhook denied the request: {why}"),
        )
    };
    let found = controller(object).and_then(|owner| world.store.by_uid(owner));
    let Some((_, instance)) = found.filter(|(key, _)| key.kind == Kind::Instance) else {
        return Err(denied(409, "no such instance".to_owned()));
    };
    if is_deleting(instance) {
        return Err(denied(422, "it is being deleted".to_owned()));
    }
    if instance["spec"]["running"] != true {
        return Err(denied(409, "spec.running is false".to_owned()));
    }
    let at = instance["status"]["nodeName"].as_str().unwrap_or_default();
    let node: Option<Node> = world.store.get(&Key::node(at)).map(|node| read(node));
    let instance: StoppableContainerInstance = read(instance);
    let wrapper = Wrapper {
        image: "wrapper:1".to_owned(),
        pull_secret: None,
    };
    let facts = Facts {
        wrapper: &wrapper,
        instance: &instance,
        node: node.as_ref(),
        scheduler_claims: &BTreeSet::new(),
        placement: None,
    };
    let pod: Pod = read(object);
    match rewrite(&pod, &facts) {
        Ok(rewritten) => Ok(serde_json::to_value(rewritten.pod).unwrap()),
        Err(denial) => Err(denied(409, denial.to_string())),
    }
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap()
}
