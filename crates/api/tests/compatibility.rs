/*!
Objects that versions of the product leave to each other (F27): an upgrade reads what the earlier
version stored, and a downgrade gives the earlier version what this one stored.

`compatibility/` has, as files that never change:

- `schema-DATE.json`: the schemas of an earlier version, taken from its CRDs, without templates,
  which are the user's, and without descriptions. The API server removes from a stored object what
  the schema of the installed CRD does not have.
- `objects-DATE.json`: an object of each kind with every field of that version.

`objects.json` is the same for this version. A new field has to be added to it. When a version is
released, its schemas and objects are copied under its date.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

/// Parts of an object that the product writes.
const PARTS: [&str; 2] = ["spec", "status"];
/// Part of the specification that is the user's.
const TEMPLATE: &str = "template";
/// The earlier version.
const EARLIER: &str = "2026-11-25";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compatibility")
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn objects(name: &str) -> Vec<Value> {
    serde_json::from_value(read(name)).unwrap()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

/// Schemas by kind and part.
struct Schemas(Value);

// === impl Schemas ===

impl Schemas {
    fn earlier() -> Self {
        Self(read(&format!("schema-{EARLIER}.json")))
    }

    /// Those of the generated CRDs.
    fn now() -> Self {
        let mut all = json!({});
        for name in ["stoppablecontainers", "stoppablecontainerinstances"] {
            let file = format!("../../config/crd/{name}.yaml");
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            let crd: Value = serde_saphyr::from_str(&text).unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            let mut parts = json!({ "spec": schema["spec"], "status": schema["status"] });
            let spec = &mut parts["spec"];
            spec["properties"].as_object_mut().unwrap().remove(TEMPLATE);
            let required = spec["required"].as_array_mut().unwrap();
            required.retain(|name| name != TEMPLATE);
            all[crd["spec"]["names"]["kind"].as_str().unwrap()] = parts;
        }
        Self(all)
    }

    fn part(&self, kind: &str, part: &str) -> &Value {
        let schema = &self.0[kind][part];
        assert!(schema.is_object(), "{kind}.{part}");
        schema
    }

    /// The object as the API server stores it with these schemas.
    fn prune(&self, object: &Value) -> Value {
        let mut pruned = object.clone();
        let name = kind(object);
        for part in PARTS {
            let template = pruned[part][TEMPLATE].clone();
            prune(&mut pruned[part], self.part(name, part));
            if part == "spec" {
                pruned[part][TEMPLATE] = template;
            }
        }
        pruned
    }

    /// Whether the API server accepts the object with these schemas.
    fn check(&self, object: &Value) {
        for part in PARTS {
            let schema = self.part(kind(object), part);
            let validator: Validator = jsonschema::validator_for(schema).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(&object[part])
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{} {part}: {errors:#?}", kind(object));
        }
    }
}

/// Removes fields without a schema, as the API server does (structural schemas, "Field pruning").
fn prune(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(properties) = schema["properties"].as_object() {
                fields.retain(|name, _| properties.contains_key(name));
                for (name, value) in fields {
                    prune(value, &properties[name]);
                }
            } else {
                for value in fields.values_mut() {
                    prune(value, &schema["additionalProperties"]);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(item, &schema["items"])),
        _ => {}
    }
}

/// Fields of a schema that the value does not have.
fn missing(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match value.get(name) {
            Some(value) => missing(value, schema, &path, found),
            None => found.push(path),
        }
    }
    if let Some(items) = schema.get("items") {
        match value.as_array().and_then(|items| items.first()) {
            Some(item) => missing(item, items, path, found),
            None => found.push(format!("{path}[0]")),
        }
    }
}

/// The object as this version reads and writes it. The template stays as it is.
fn read_and_written(object: &Value) -> Value {
    let text = object.to_string();
    match kind(object) {
        "StoppableContainer" => {
            serde_json::to_value(serde_json::from_str::<StoppableContainer>(&text).unwrap())
        }
        "StoppableContainerInstance" => {
            serde_json::to_value(serde_json::from_str::<StoppableContainerInstance>(&text).unwrap())
        }
        other => panic!("{other}"),
    }
    .unwrap()
}

/// Adds a field of a later version to every object in the parts of the product.
fn with_later_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_later_fields);
            fields.insert("ofALaterVersion".to_owned(), json!({ "a": [1] }));
        }
        Value::Array(items) => items.iter_mut().for_each(with_later_fields),
        _ => {}
    }
}

#[test]
fn the_objects_have_every_field_of_their_version() {
    for (schemas, file) in [
        (Schemas::earlier(), format!("objects-{EARLIER}.json")),
        (Schemas::now(), "objects.json".to_owned()),
    ] {
        for object in objects(&file) {
            schemas.check(&object);
            let mut found = Vec::new();
            for part in PARTS {
                missing(&object[part], schemas.part(kind(&object), part), part, &mut found);
            }
            assert!(found.is_empty(), "{file} {}: {found:#?}", kind(&object));
        }
    }
}

#[test]
fn f27_this_version_reads_all_that_the_earlier_one_stored() {
    let now = Schemas::now();
    for object in objects(&format!("objects-{EARLIER}.json")) {
        now.check(&object);
        assert_eq!(
            now.prune(&object),
            object,
            "{}: the upgrade removes something",
            kind(&object)
        );
        let written = read_and_written(&object);
        for part in PARTS {
            let before = Schemas::earlier().part(kind(&object), part).clone();
            let (mut known, mut expected) = (written[part].clone(), object[part].clone());
            for value in [&mut known, &mut expected] {
                value.as_object_mut().unwrap().remove(TEMPLATE);
                prune(value, &before);
            }
            assert_eq!(known, expected, "{} {part}", kind(&object));
        }
    }
}

#[test]
fn f27_the_earlier_version_reads_what_this_one_stored() {
    let earlier = Schemas::earlier();
    for object in objects("objects.json") {
        let written = read_and_written(&object);
        assert_eq!(
            written["status"],
            object["status"],
            "{}: lost when read",
            kind(&object)
        );
        let stored = earlier.prune(&written);
        earlier.check(&stored);
        // And this version reads what is left of it after the next upgrade.
        Schemas::now().check(&stored);
        let read = read_and_written(&stored);
        assert_eq!(earlier.prune(&read)["status"], stored["status"]);
    }
}

#[test]
fn f27_fields_of_a_later_version_are_ignored() {
    for object in objects("objects.json") {
        let mut later = object.clone();
        for (name, value) in later.as_object_mut().unwrap() {
            if PARTS.contains(&name.as_str()) {
                let template = value[TEMPLATE].take();
                with_later_fields(value);
                if name == "spec" {
                    value[TEMPLATE] = template;
                } else {
                    value.as_object_mut().unwrap().remove(TEMPLATE);
                }
            }
        }
        let status = read_and_written(&later)["status"].clone();
        assert_eq!(status, object["status"], "{}", kind(&object));
    }
}
