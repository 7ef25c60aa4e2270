//! What users may rely on in the CRDs, read from the generated schema itself.

use serde_json::{Value, json};

use super::custom_resource_definitions;
use crate::{StoppableContainer, StoppableContainerInstance};

/// etcd takes objects of 1.5 MiB, but `kubectl apply` keeps the manifest in annotations of at most
/// 256 KiB together.
const MAX_BYTES: usize = 250 * 1024;

fn schemas() -> [Value; 2] {
    custom_resource_definitions().map(|crd| {
        let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
        version.pointer("/schema/openAPIV3Schema").unwrap().clone()
    })
}

/// Every schema node with its path.
fn nodes(schema: &Value, path: &str, out: &mut Vec<(String, Value)>) {
    out.push((path.to_owned(), schema.clone()));
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            nodes(child, &format!("{path}.{name}"), out);
        }
    }
    for (key, step) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = schema.get(key).filter(|c| c.is_object()) {
            nodes(child, &format!("{path}{step}"), out);
        }
    }
}

fn all_nodes() -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for schema in schemas() {
        nodes(&schema, "", &mut out);
    }
    out
}

#[test]
fn every_node_is_structural() {
    const KNOWN: [&str; 18] = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minItems",
        "nullable",
        "properties",
        "required",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    for (path, node) in all_nodes() {
        let open = node.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
        let typeless = node.get("x-kubernetes-int-or-string") == Some(&json!(true)) || open;
        assert!(
            typeless != node["type"].is_string() || open && node["type"] == json!("object"),
            "{path}: a type, or a reason to have none"
        );
        assert!(
            !(node.get("properties").is_some() && node.get("additionalProperties").is_some()),
            "{path}"
        );
        for key in node.as_object().unwrap().keys() {
            assert!(
                KNOWN.contains(&key.as_str()) || key == "x-kubernetes-int-or-string",
                "{path}: {key}"
            );
        }
        if let Some(values) = node.get("enum").and_then(Value::as_array) {
            assert!(!values.contains(&Value::Null), "{path}: null as a value");
        }
    }
}

#[test]
fn manifests_are_small_enough_for_kubectl_apply() {
    for crd in custom_resource_definitions() {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(size < MAX_BYTES, "{}: {size} bytes", crd.spec.names.kind);
    }
}

/// What a newer Kubernetes adds to an object of a pod spec is stored. Metadata is not open: what is
/// misspelt there would reach no pod, so the API server has to say so.
#[test]
fn i19_every_object_of_a_pod_spec_is_open() {
    let template = ".spec.template.spec";
    for (path, node) in all_nodes() {
        let open = node.get("x-kubernetes-preserve-unknown-fields").is_some();
        let object = node["type"] == json!("object") && node.get("additionalProperties").is_none();
        if object {
            assert_eq!(open, path.starts_with(template), "{path}");
        }
    }
}

#[test]
fn i18_every_list_map_and_text_that_users_write_is_bounded() {
    let mut lists = std::collections::BTreeMap::new();
    for (path, node) in all_nodes() {
        if !path.starts_with(".spec.") && path != ".status.conditions" {
            continue;
        }
        assert_eq!(
            node["type"] == json!("array"),
            node.get("maxItems").is_some(),
            "{path}"
        );
        assert_eq!(
            node.get("additionalProperties").is_some(),
            node.get("maxProperties").is_some(),
            "{path}"
        );
        let text = node["type"] == json!("string");
        assert_eq!(text, node.get("maxLength").is_some(), "{path}");
        lists.insert(path, node["maxItems"].clone());
    }
    for (path, most) in [
        (".spec.template.spec.containers", 64),
        (".spec.template.spec.volumes", 512),
        (".spec.template.spec.containers[].env", 2_000),
        (".spec.provider.tolerations", 256),
    ] {
        assert_eq!(lists[path], json!(most), "{path}");
    }
}

#[test]
fn our_own_fields_are_all_described() {
    for (path, node) in all_nodes() {
        let ours = path.starts_with(".spec") && !path.contains(".template.") && !path.contains(".provider.")
            || path.starts_with(".status") && !path.contains("conditions[]");
        if ours && !path.ends_with("[]") {
            assert!(
                node["description"].as_str().is_some_and(|d| !d.is_empty()),
                "{path} has no description"
            );
        }
        if let Some(text) = node["description"].as_str() {
            assert!(!text.contains('\n') && !text.contains("[`"), "{path}: {text}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_reference() {
    let resources = json!({
        "requests": { "cpu": "10m", "memory": "16Mi" },
        "limits": { "cpu": "100m", "memory": "64Mi" },
    });
    for schema in schemas() {
        let spec = schema.pointer("/properties/spec/properties").unwrap();
        assert_eq!(spec["running"]["default"], json!(false));
        assert_eq!(
            spec["hostPathPrefix"]["default"],
            json!("/var/lib/stoppablecontainer")
        );
        assert_eq!(spec["provider"]["default"], json!({ "resources": resources }));
        assert_eq!(spec["provider"]["properties"]["resources"]["default"], resources);
        assert_eq!(
            schema
                .pointer("/properties/status/properties/phase/enum")
                .unwrap(),
            &json!(["Pending", "ProviderReady", "Running", "Stopped", "Failed"])
        );
    }
}

#[test]
fn template_needs_a_spec_with_a_container() {
    for schema in schemas() {
        let template = schema.pointer("/properties/spec/properties/template").unwrap();
        assert_eq!(template["required"], json!(["spec"]));
        assert_eq!(template["properties"]["spec"]["required"], json!(["containers"]));
        assert_eq!(
            template["properties"]["spec"]["properties"]["containers"]["minItems"],
            json!(1)
        );
    }
}

#[test]
fn template_metadata_keeps_labels_and_annotations_and_takes_a_null_creation_timestamp() {
    for schema in schemas() {
        let metadata = schema
            .pointer("/properties/spec/properties/template/properties/metadata")
            .unwrap();
        for map in ["labels", "annotations"] {
            assert_eq!(
                metadata["properties"][map]["additionalProperties"]["type"],
                json!("string"),
                "{map}"
            );
        }
        assert_eq!(
            metadata["properties"]["creationTimestamp"]["nullable"],
            json!(true)
        );
        assert!(metadata["properties"].get("ownerReferences").is_none());
    }
    let nullable: Vec<_> = all_nodes()
        .into_iter()
        .filter(|(_, n)| n["nullable"] == json!(true))
        .map(|(p, _)| p)
        .collect();
    assert_eq!(nullable, vec![".spec.template.metadata.creationTimestamp"; 2]);
}

#[test]
fn conditions_are_a_map_by_type() {
    for schema in schemas() {
        let conditions = schema
            .pointer("/properties/status/properties/conditions")
            .unwrap();
        assert_eq!(conditions["x-kubernetes-list-type"], json!("map"));
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    }
}

#[test]
fn ports_are_int_or_string_and_quantities_anything_a_quantity_can_be() {
    for (path, node) in all_nodes() {
        let any = node.get("x-kubernetes-preserve-unknown-fields").is_some() && node.get("type").is_none();
        if path.ends_with("Socket.port") {
            assert!(
                !any && node["x-kubernetes-int-or-string"] == json!(true),
                "{path}"
            );
        }
        let quantity = path.contains("resources.limits{}")
            || path.contains("resources.requests{}")
            || path.ends_with(".sizeLimit")
            || path.ends_with(".divisor")
            || path.contains(".overhead{}");
        assert_eq!(any, quantity, "{path}");
    }
}

#[test]
fn rules_stand_where_cel_sees_them() {
    for (kind, schema) in ["StoppableContainer", "StoppableContainerInstance"]
        .into_iter()
        .zip(schemas())
    {
        assert!(schema["description"].as_str().unwrap().starts_with(kind));
        assert_eq!(
            schema["x-kubernetes-validations"][0]["rule"],
            json!("size(self.metadata.name) <= 63")
        );
        let prefix = schema
            .pointer("/properties/spec/properties/hostPathPrefix")
            .unwrap();
        assert_eq!(
            prefix["x-kubernetes-validations"][0]["rule"],
            json!("self == oldSelf")
        );
        assert_eq!(prefix["type"], json!("string"));
    }
}

#[test]
fn instances_can_be_selected_by_node() {
    let [_, instance] = custom_resource_definitions();
    let version = serde_json::to_value(&instance.spec.versions[0]).unwrap();
    assert_eq!(
        version["selectableFields"],
        json!([{ "jsonPath": ".status.nodeName" }])
    );
    assert_eq!(version["subresources"], json!({ "status": {} }));
}

#[test]
fn quantities_written_as_numbers_are_read() {
    let object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainer",
        "metadata": { "name": "n" },
        "spec": { "template": {
            "metadata": { "creationTimestamp": null },
            "spec": { "containers": [{
                "name": "main", "image": "i",
                "resources": { "requests": { "cpu": 2, "memory": "1Gi" }, "limits": { "cpu": 0.5 } },
            }] },
        } },
    });
    let read: StoppableContainer = serde_json::from_value(object).unwrap();
    assert!(!read.spec.running);
    let main = &read.spec.template.decode().unwrap().spec.unwrap().containers[0];
    let resources = main.resources.clone().unwrap();
    assert_eq!(resources.requests.unwrap()["cpu"].0, "2");
    assert_eq!(resources.limits.unwrap()["cpu"].0, "0.5");
}

#[test]
fn instance_of_the_reference_is_read() {
    let object = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        "metadata": { "name": "example" },
        "spec": {
            "stoppableContainerName": "example",
            "running": true,
            "template": { "spec": { "containers": [{ "name": "main", "image": "ubuntu:22.04" }] } },
            "provider": { "resources": { "requests": { "memory": "32Mi", "cpu": "10m" } } },
        },
    });
    let read: StoppableContainerInstance = serde_json::from_value(object).unwrap();
    assert_eq!(read.spec.host_path_prefix, crate::DEFAULT_HOST_PATH_PREFIX);
    assert_eq!(read.spec.provider.decode().unwrap().resources.limits, None);
}
