//! Webhooks that inject nothing and change fields.

use json_patch::Patch;
use serde_json::{Value, json};

use crate::pod::{Operations, container_names, edit_containers, edit_list, edited, has, label, list};

/// A registry rewriter, as IndeedEng/harbor-container-webhook (`internal/webhook/mutate.go`) puts a
/// proxy project in front of the images of every container. This one puts another name of the same
/// registry in front, so that the images exist.
pub(crate) fn registry(pod: &Value) -> Patch {
    edited(pod, |pod| {
        for key in ["initContainers", "containers"] {
            edit_containers(pod, key, |container| {
                let image = container["image"].as_str().unwrap_or_default();
                let path = image.strip_prefix("docker.io/").unwrap_or(image);
                let has_registry = path
                    .split_once('/')
                    .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
                if !has_registry {
                    let path = if path.contains('/') {
                        path.to_owned()
                    } else {
                        format!("library/{path}")
                    };
                    container["image"] = json!(format!("index.docker.io/{path}"));
                }
            });
        }
    })
}

/// A Kyverno mutation with add-if-not-present anchors for every container, as kyverno/policies
/// `other/add-default-securitycontext` has them for the pod. Kyverno sends the difference.
pub(crate) fn kyverno(pod: &Value) -> Patch {
    edited(pod, |pod| {
        for key in ["initContainers", "containers"] {
            edit_containers(pod, key, |container| {
                if container["securityContext"].is_null() {
                    container["securityContext"] = json!({});
                }
                let context = &mut container["securityContext"];
                if context["allowPrivilegeEscalation"].is_null() {
                    context["allowPrivilegeEscalation"] = json!(false);
                }
                if context["capabilities"]["drop"].is_null() {
                    context["capabilities"]["drop"] = json!(["ALL"]);
                }
            });
        }
    })
}

/// The vertical pod autoscaler, after kubernetes/autoscaler
/// `vertical-pod-autoscaler/pkg/admission-controller/resource/pod/patch`: operations by index, and
/// annotations.
pub(crate) fn vpa(pod: &Value) -> Patch {
    let mut operations = Operations::default();
    let mut updates = Vec::new();
    if pod["metadata"]["annotations"].is_null() {
        operations.add(["metadata", "annotations"], json!({}));
    }
    for (at, container) in list(&pod["spec"], "containers").iter().enumerate() {
        let at = at.to_string();
        let path = ["spec", "containers", &at, "resources"];
        if container["resources"].is_null() {
            operations.add(path, json!({}));
        }
        if container["resources"]["requests"].is_null() {
            operations.add(path.into_iter().chain(["requests"]), json!({}));
        }
        for (resource, value) in [("cpu", "25m"), ("memory", "64Mi")] {
            operations.add(path.into_iter().chain(["requests", resource]), json!(value));
        }
        updates.push(format!("container {at}: cpu request, memory request"));
    }
    let updates = format!("Pod resources updated by standin: {}", updates.join("; "));
    operations.add(["metadata", "annotations", "vpaUpdates"], json!(updates));
    let observed = container_names(pod).join(", ");
    operations.add(
        ["metadata", "annotations", "vpaObservedContainers"],
        json!(observed),
    );
    operations.into_patch()
}

/// Variables for every container, as telemetry operators append them
/// (open-telemetry/opentelemetry-operator `internal/instrumentation/sdk.go`), and its first
/// variable a second time.
pub(crate) fn env(pod: &Value) -> Patch {
    edited(pod, |pod| {
        edit_containers(pod, "containers", |container| {
            if !has(list(container, "env"), "INJECTED") {
                edit_list(container, "env", |env| {
                    let first = env.first().cloned();
                    env.push(json!({ "name": "INJECTED", "value": "$(PATH)" }));
                    env.extend(first);
                });
            }
        });
    })
}

/// Takes away from a consumer what StoppableContainer's webhook set.
pub(crate) fn remover(pod: &Value) -> Patch {
    if label(pod, "stoppablecontainer.xtlsoft.top/role") != "consumer" {
        return Patch::default();
    }
    edited(pod, |pod| {
        if let Some(spec) = pod["spec"].as_object_mut() {
            spec.remove("nodeName");
        }
        edit_list(&mut pod["spec"], "volumes", |volumes| {
            volumes.retain(|v| v["name"] != "stoppablecontainer");
        });
        edit_containers(pod, "containers", |container| {
            edit_list(container, "volumeMounts", |mounts| {
                mounts.retain(|m| m["name"] != "stoppablecontainer");
            });
            container["imagePullPolicy"] = json!("Always");
        });
    })
}

/// Takes away the label by which StoppableContainer's webhooks find a consumer.
pub(crate) fn unlabeller(pod: &Value) -> Patch {
    edited(pod, |pod| {
        if let Some(labels) = pod["metadata"]["labels"].as_object_mut() {
            labels.remove("stoppablecontainer.xtlsoft.top/role");
        }
    })
}

/// Only tells that it was called.
pub(crate) fn marker(pod: &Value) -> Patch {
    edited(pod, |pod| {
        pod["metadata"]["annotations"]["injectors.test/called"] = json!("true");
    })
}
