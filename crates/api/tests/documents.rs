//! Every manifest of the two kinds in the documentation and the samples has only fields that exist,
//! and a test of the cluster runs every sample.

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files below a directory of the repository, with their text.
fn files(dir: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Code blocks with YAML. Those that include a file are the file's.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, start)) = rest.split_once("```yaml\n") {
        let (block, after) = start.split_once("```").unwrap();
        if !block.contains("{{#include") {
            blocks.push(block.to_owned());
        }
        rest = after;
    }
    blocks
}

/// The first value of `written` that `read` lost, by its path.
fn lost(written: &Value, read: &Value, path: &str) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match read.get(name) {
                Some(read) => lost(value, read, &path),
                None => Some(path),
            }
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let pairs = written.iter().zip(read).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (value, read))| lost(value, read, &format!("{path}[{at}]")))
        }
        (written, read) => (written != read).then(|| path.to_owned()),
    }
}

fn read_again<T: DeserializeOwned + Serialize>(manifest: &Value, path: &str) -> Result<(), String> {
    let parsed: T = serde_json::from_value(manifest.clone()).map_err(|error| error.to_string())?;
    let read = serde_json::to_value(parsed).unwrap();
    lost(manifest, &read, path).map_or(Ok(()), |field| Err(format!("{field} does not exist")))
}

/// Parses a manifest and its template as the types that the API server and the controller use.
fn check(manifest: &Value) -> Result<(), String> {
    match manifest["kind"].as_str() {
        Some("StoppableContainer") => read_again::<StoppableContainer>(manifest, "")?,
        Some("StoppableContainerInstance") => read_again::<StoppableContainerInstance>(manifest, "")?,
        _ => return Ok(()),
    }
    let template = &manifest["spec"]["template"];
    if template.is_null() {
        return Ok(());
    }
    read_again::<PodTemplateSpec>(template, ".spec.template")
}

/// Checks the documents of a YAML stream, and returns how many are ours.
fn check_stream(path: &Path, text: &str) -> usize {
    let documents = text.split("\n---\n").map(serde_saphyr::from_str::<Value>);
    let documents =
        documents.map(|document| document.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let ours = documents.filter(|document| {
        check(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        document["kind"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("StoppableContainer"))
    });
    ours.count()
}

#[test]
fn manifests_in_the_documentation_have_only_fields_that_exist() {
    let mut pages = files("docs", "md");
    pages.push((
        "README.md".into(),
        std::fs::read_to_string(root().join("README.md")).unwrap(),
    ));
    let count = pages.iter().map(|(path, text)| {
        blocks(text)
            .iter()
            .map(|block| check_stream(path, block))
            .sum::<usize>()
    });
    assert!(count.sum::<usize>() > 3);
}

#[test]
fn samples_have_only_fields_that_exist_and_a_test_runs_each() {
    let tests: String = files("tests/e2e", "rs")
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for (path, text) in files("config/samples", "yaml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ours = check_stream(&path, &text);
        // The objects that a sample needs are those of the reader's cluster, so tests make others.
        assert_eq!(ours > 0, !name.ends_with("-objects.yaml"), "{name}");
        assert!(
            ours == 0 || tests.contains(&format!("{name:?}")),
            "no test runs {name}"
        );
    }
}

#[test]
fn a_field_that_does_not_exist_is_found() {
    let manifest = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let kind = "apiVersion: stoppablecontainer.xtlsoft.top/v1alpha1\nkind: StoppableContainer\nmetadata: {name: a}\n";
    let good = "spec: {running: true, template: {spec: {containers: [{name: a, image: b}]}}}";
    assert_eq!(check(&manifest(&format!("{kind}{good}"))), Ok(()));
    for (text, field) in [
        (
            "spec: {runing: true, template: {spec: {containers: []}}}",
            ".spec.runing",
        ),
        (
            "spec: {template: {spec: {containers: [{name: a, imge: b}]}}}",
            ".spec.template.spec.containers[0].imge",
        ),
    ] {
        let error = check(&manifest(&format!("{kind}{text}"))).unwrap_err();
        assert_eq!(error, format!("{field} does not exist"));
    }
}
