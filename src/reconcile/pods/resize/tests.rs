//! Which edits change a pod in place, and what it carries then.

use serde_json::json;

use super::*;
use crate::reconcile::pods::fixtures::{edit, instance, pod, up};
use crate::reconcile::pods::{Role, template_fields};

/// A consumer of a main container with these resources, and its instance after an edit of the
/// template.
fn edited(
    resources: &Value,
    change: impl FnOnce(&mut Value),
) -> (StoppableContainerInstance, std::sync::Arc<Pod>) {
    let containers = json!([
        { "name": "main", "image": "i", "resources": resources },
        { "name": "side", "image": "s", "resources": { "requests": { "cpu": "10m" } } },
    ]);
    let mut object =
        (*instance(json!({ "spec": { "template": { "spec": { "containers": containers } } } }))).clone();
    let pod = pod(&object, Role::Consumer, up());
    edit(&mut object, change);
    (object, pod)
}

fn set(resources: Value) -> impl FnOnce(&mut Value) {
    move |template| template["spec"]["containers"][0]["resources"] = resources
}

/// The pod with the annotations of a change.
fn changed(pod: &Pod, resize: &Resize) -> Pod {
    let mut pod = pod.clone();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    for (name, value) in resize.annotations.as_object().unwrap() {
        annotations.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    pod
}

fn one() -> Value {
    json!({ "limits": { "cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1" }, "requests": { "cpu": "500m" } })
}

#[test]
fn nothing_is_wanted_without_an_edit_of_amounts() {
    let (object, pod) = edited(&one(), |_| {});
    assert_eq!(wanted(&object, &pod), None);
    let (object, pod) = edited(&one(), |template| {
        template["spec"]["containers"][0]["image"] = json!("j");
    });
    assert_eq!(wanted(&object, &pod), None);
    let more = json!({ "limits": { "cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2" }, "requests": { "cpu": "500m" } });
    let (object, pod) = edited(&one(), set(more));
    assert_eq!(wanted(&object, &pod), None, "a device cannot be added in place");
}

#[test]
fn only_the_edited_amounts_change_and_the_pod_then_shows_them() {
    let more = json!({ "limits": { "cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "1" }, "requests": { "cpu": "500m" } });
    let (object, pod) = edited(&one(), set(more));
    let resize = wanted(&object, &pod).unwrap().unwrap();
    // The request for memory follows the limit, as the API server sets it at creation.
    assert_eq!(
        resize.containers,
        json!([{ "name": "main", "resources": {
            "limits": { "cpu": "2", "memory": "2Gi" }, "requests": { "cpu": "500m", "memory": "2Gi" },
        } }])
    );
    let pod = changed(&pod, &resize);
    assert_eq!(wanted(&object, &pod), None);
    assert_eq!(
        pod.annotations()[ANNOTATION_TEMPLATE_FIELDS],
        template_fields::annotation(&object)
    );
    assert_eq!(
        pod.annotations()[ANNOTATION_TEMPLATE_HASH],
        consumer_hash(&object)
    );
}

#[test]
fn other_edits_still_need_a_restart() {
    let (object, pod) = edited(&one(), |template| {
        template["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("3");
        template["spec"]["containers"][0]["image"] = json!("j");
    });
    let resize = wanted(&object, &pod).unwrap().unwrap();
    let pod = changed(&pod, &resize);
    assert_eq!(wanted(&object, &pod), None);
    assert_ne!(
        pod.annotations()[ANNOTATION_TEMPLATE_HASH],
        consumer_hash(&object)
    );
    let before = serde_json::from_str(&pod.annotations()[ANNOTATION_TEMPLATE_FIELDS]).unwrap();
    assert_eq!(
        template_fields::edited(&object, before, false),
        ["spec.template.spec.containers[0].image"]
    );
}

#[test]
fn what_cannot_change_in_place_has_a_reason() {
    let less = json!({ "limits": { "cpu": "2" }, "requests": { "cpu": "500m" } });
    let (object, pod) = edited(&json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), set(less));
    assert_eq!(
        wanted(&object, &pod),
        Some(Err(
            "resources.limits.memory of container main cannot be removed".to_owned()
        ))
    );
    let (mut object, pod) = edited(&one(), set(json!({ "limits": { "cpu": "2", "memory": "1Gi" } })));
    edit(&mut object, |template| {
        template["metadata"] = json!({ "labels": { "kueue.x-k8s.io/queue-name": "q" } });
    });
    assert!(wanted(&object, &pod).unwrap().unwrap_err().contains("Kueue"));
}

/// A limit range gave the pod a limit that no template has.
#[test]
fn amounts_of_others_do_not_matter_unless_they_are_edited() {
    let (object, pod) = edited(
        &json!({ "limits": { "cpu": "1" } }),
        set(json!({ "limits": { "cpu": "2" } })),
    );
    let mut pod = (*pod).clone();
    let containers = &mut pod.spec.as_mut().unwrap().containers;
    let limits = containers[0].resources.as_mut().unwrap().limits.as_mut().unwrap();
    limits.insert("memory".to_owned(), serde_json::from_value(json!("1Gi")).unwrap());
    let resize = wanted(&object, &pod).unwrap().unwrap();
    assert_eq!(
        resize.containers[0]["resources"],
        json!({ "limits": { "cpu": "2" }, "requests": { "cpu": "2" } })
    );
}

#[test]
fn an_additional_container_is_changed_too() {
    let (object, pod) = edited(&one(), |template| {
        template["spec"]["containers"][1]["resources"]["requests"]["cpu"] = json!("20m");
    });
    let resize = wanted(&object, &pod).unwrap().unwrap();
    assert_eq!(
        resize.containers,
        json!([{ "name": "side", "resources": { "limits": {}, "requests": { "cpu": "20m" } } }])
    );
}
