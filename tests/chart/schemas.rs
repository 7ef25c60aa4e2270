//! Everything that the chart renders is what the oldest and the newest release of Kubernetes
//! expect: known kinds, known fields, and values of their types.
//!
//! The files are Kubernetes' `api/openapi-spec/swagger.json`. The API server only warns of an
//! unknown field, and Helm does not show these warnings.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{name, render_for, root};

/// Groups that Kubernetes does not have, and that their operators define.
const FOREIGN_GROUPS: &[&str] = &["monitoring.coreos.com", "cert-manager.io"];

/// Values that together render every template.
const VALUES: &[&[&str]] = &[
    &[],
    &[
        "metrics.serviceMonitor.enabled=true",
        "metrics.podMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "metrics.grafanaDashboard.enabled=true",
        "networkPolicy.enabled=true",
        "resourceQuota.enabled=true",
        "certificates.source=cert-manager",
        "global.imagePullSecrets[0].name=pull",
        "commonLabels.team=a",
        "tracing.enabled=true",
        "tracing.endpoint=https://collector:4318",
        "tracing.caSecret=ca",
    ],
];

/// Kubernetes' definitions, which reject unknown fields.
struct Definitions {
    /// Minor release, as in 1.34.
    release: String,
    all: Value,
    /// Names of the definitions by group, version and kind.
    kinds: BTreeMap<(String, String, String), String>,
}

// === impl Definitions ===

impl Definitions {
    fn read(file: &Path) -> Self {
        let text = fs::read(file).unwrap();
        let swagger: Value = serde_json::from_slice(&text).unwrap();
        let mut definitions = swagger["definitions"].clone();
        let mut kinds = BTreeMap::new();
        for (name, definition) in definitions.as_object_mut().unwrap() {
            for kind in definition["x-kubernetes-group-version-kind"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let [group, version, kind] =
                    ["group", "version", "kind"].map(|key| kind[key].as_str().unwrap().to_owned());
                kinds.insert((group, version, kind), name.clone());
            }
            if definition["format"] == "int-or-string" {
                *definition = json!({ "type": ["string", "integer"] });
            } else if name.ends_with("pkg.api.resource.Quantity") {
                // Its decoder takes numbers, too.
                *definition = json!({ "type": ["string", "number"] });
            } else if definition.get("properties").is_some() {
                definition["additionalProperties"] = json!(false);
            }
        }
        Self {
            release: file.file_stem().unwrap().to_str().unwrap().to_owned(),
            all: definitions,
            kinds,
        }
    }

    /// What is wrong with an object: each error with the path of its field.
    fn errors(&self, object: &Value) -> Vec<String> {
        let api_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = object["kind"].as_str().unwrap();
        if FOREIGN_GROUPS.contains(&group) {
            return Vec::new();
        }
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        let Some(definition) = self.kinds.get(&key) else {
            return vec![format!(
                "Kubernetes {} does not have {kind} of {api_version}",
                self.release
            )];
        };
        let schema = json!({
            "$schema": "http://json-schema.org/draft-04/schema#",
            "$ref": format!("#/definitions/{definition}"),
            "definitions": self.all,
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        validator
            .iter_errors(object)
            .map(|error| {
                format!(
                    "Kubernetes {}: {kind} {}: {}: {error}",
                    self.release,
                    name(object),
                    error.instance_path()
                )
            })
            .collect()
    }
}

/// The definitions of each release.
fn releases() -> Vec<Definitions> {
    let directory = std::env::var_os("KUBERNETES_SCHEMAS")
        .expect("KUBERNETES_SCHEMAS is the directory of Kubernetes' definitions; `cargo xtask test` sets it");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files.iter().map(|file| Definitions::read(file)).collect()
}

#[test]
fn every_object_is_valid_in_the_oldest_and_the_newest_kubernetes() {
    let releases = releases();
    let names: Vec<_> = releases.iter().map(|release| release.release.as_str()).collect();
    let chart = fs::read_to_string(root().join("charts/stoppablecontainer/Chart.yaml")).unwrap();
    assert!(
        chart.contains(&format!("kubeVersion: \">={}.0-0\"", names[0])),
        "the first of {names:?} is not the oldest that the chart allows"
    );
    assert!(names.len() > 1, "{names:?}");
    let mut errors = Vec::new();
    for release in &releases {
        for values in VALUES {
            let objects = render_for(&format!("{}.0", release.release), values);
            assert!(objects.0.len() > 20, "only {:?}", objects.names());
            errors.extend(objects.0.iter().flat_map(|object| release.errors(object)));
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn an_unknown_field_a_wrong_type_and_an_unknown_kind_are_errors() {
    let releases = releases();
    let release = &releases[0];
    let map = |extra: Value| {
        let mut object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
        object
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        release.errors(&object)
    };
    assert!(map(json!({})).is_empty());
    let unknown = map(json!({ "metadata": { "name": "a", "lables": {} } }));
    assert!(
        unknown[0].contains("/metadata") && unknown[0].contains("lables"),
        "{unknown:?}"
    );
    assert!(map(json!({ "data": { "a": 1 } }))[0].contains("/data/a"));
    assert!(map(json!({ "kind": "ConfigMapp" }))[0].contains("does not have ConfigMapp of v1"));
}
