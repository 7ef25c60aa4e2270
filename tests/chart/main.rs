/*!
The objects that the chart renders from its values, and the values that its schema rejects. Helm
renders without a cluster.

`HELM` is the path of helm, and `KUBERNETES_SCHEMAS` the directory of Kubernetes' own description of
its API, a file for each release.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used)]

mod certificates;
mod hooks;
mod images;
mod names;
mod permissions;
mod pods;
mod release;
mod schemas;
mod tracing;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const NAMESPACE: &str = "own-namespace";
const RELEASE: &str = "stoppablecontainer";

/// The objects of a release.
struct Objects(Vec<Value>);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The release of Kubernetes that the chart is rendered for, unless a test is about releases.
const KUBERNETES: &str = "1.34.0";

fn template(kubernetes: &str, values: &[&str]) -> Output {
    let helm = std::env::var_os("HELM").expect("HELM is the path of helm; `cargo xtask test` sets it");
    let mut command = Command::new(helm);
    command.args([
        "template",
        RELEASE,
        "--kube-version",
        kubernetes,
        "--namespace",
        NAMESPACE,
    ]);
    for value in values {
        command.args(["--set", value]);
    }
    command
        .arg(root().join("charts/stoppablecontainer"))
        .output()
        .unwrap()
}

/// Renders the chart, which must succeed. Values have the form of `--set`. The CRDs are left out
/// unless the values ask for them, because they are long.
fn render(values: &[&str]) -> Objects {
    render_for(KUBERNETES, &[&["crds.enabled=false"], values].concat())
}

/// Renders the chart for a release of Kubernetes, which must succeed.
fn render_for(kubernetes: &str, values: &[&str]) -> Objects {
    let output = template(kubernetes, values);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text
        .split("\n---\n")
        .map(|text| text.strip_prefix("---\n").unwrap_or(text));
    let objects = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    Objects(objects.filter(|object| !object.is_null()).collect())
}

/// The text of a template expression. An object of the user contains it.
fn evaluate(expression: &str, values: &[&str]) -> String {
    let object =
        format!("extraObjects[0]=kind: Text\nmetadata: {{name: x}}\ntext: {{{{ {expression} | quote }}}}");
    let objects = render(&[&[object.as_str()], values].concat());
    objects.get("Text", "")["text"].as_str().unwrap().to_owned()
}

/// The message of helm, which must refuse the values.
fn refused(values: &[&str]) -> String {
    let output = template(KUBERNETES, values);
    assert!(!output.status.success(), "{values:?} were accepted");
    String::from_utf8(output.stderr).unwrap()
}

// === impl Objects ===

impl Objects {
    /// The only object of a kind whose name ends like this.
    fn get(&self, kind: &str, suffix: &str) -> &Value {
        let found: Vec<_> = self
            .of(kind)
            .filter(|object| name(object).ends_with(suffix))
            .collect();
        assert_eq!(found.len(), 1, "{kind} *{suffix}: {:?}", self.names());
        found[0]
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    fn has(&self, kind: &str) -> bool {
        self.of(kind).next().is_some()
    }

    fn names(&self) -> Vec<String> {
        let names = self
            .0
            .iter()
            .map(|object| format!("{} {}", object["kind"], name(object)));
        names.collect()
    }

    /// The objects with pods.
    fn workloads(&self) -> impl Iterator<Item = &Value> {
        self.0
            .iter()
            .filter(|object| !object["spec"]["template"]["spec"]["containers"].is_null())
    }

    fn controller(&self) -> &Value {
        &self.get("Deployment", "-controller")["spec"]["template"]
    }

    fn agent(&self) -> &Value {
        &self.get("DaemonSet", "-node-agent")["spec"]["template"]
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The only container of a pod's template.
fn container(template: &Value) -> &Value {
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

fn args(template: &Value) -> Vec<&str> {
    let args = container(template)["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap()).collect()
}

/// The value of an environment variable of the only container.
fn variable<'t>(template: &'t Value, name: &str) -> Option<&'t str> {
    let variables = container(template)["env"].as_array().unwrap();
    let mut found = variables.iter().filter(|variable| variable["name"] == name);
    let value = found.next().map(|variable| variable["value"].as_str().unwrap());
    assert!(found.next().is_none(), "{name} twice");
    value
}

/// All strings in a value.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}
