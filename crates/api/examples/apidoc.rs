//! Prints `docs/api.md` for `cargo xtask codegen`. The tables come from the CRDs and the constants
//! of this crate, the text between them from `apidoc.md` in this directory.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde_json::Value;
use stoppablecontainer_api::conditions::{self, READY, reason};
use stoppablecontainer_api::{
    FilesystemState, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES, Phase, Placement, RecoveryVerb,
    custom_resource_definitions, names,
};

const TEMPLATE: &str = include_str!("apidoc.md");
/// Maximum number of columns of a line of text.
const WIDTH: usize = 100;
/// Prefix of the template's lines that are replaced.
const MARK: &str = "@@ ";
/// Maximum number of elements of a list in a pod template without a bound of its own.
const OTHER_LISTS: u64 = 1024;

/// Fields with Kubernetes' own types, which are not listed in detail.
const FOREIGN: [(&str, &str); 4] = [
    ("spec.template", "[the template](#the-template)"),
    (
        "spec.provider.resources",
        "[ResourceRequirements](https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/)",
    ),
    (
        "spec.provider.tolerations",
        "list of [Toleration](https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/)",
    ),
    ("status.conditions", "list of [Condition](#conditions)"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut schemas = BTreeMap::new();
    for crd in custom_resource_definitions() {
        let versions = serde_json::to_value(&crd.spec.versions)?;
        let schema = versions.pointer("/0/schema/openAPIV3Schema").cloned();
        schemas.insert(crd.spec.names.kind, schema.ok_or("a CRD without a schema")?);
    }
    let mut document = String::new();
    for line in TEMPLATE.lines() {
        match line.strip_prefix(MARK) {
            Some(words) => document.push_str(&generated(words, &schemas)?),
            None => writeln!(document, "{line}")?,
        }
    }
    print!("{document}");
    Ok(())
}

/// The text that replaces a line of the template.
fn generated(words: &str, schemas: &BTreeMap<String, Value>) -> Result<String, Box<dyn std::error::Error>> {
    let words: Vec<_> = words.split(' ').collect();
    Ok(match words[..] {
        ["fields", kind, part] => fields(schemas.get(kind).ok_or("an unknown kind")?, part),
        ["values", "Phase"] => values::<Phase>(),
        ["values", "FilesystemState"] => values::<FilesystemState>(),
        ["values", "Placement"] => values::<Placement>(),
        ["values", "RecoveryVerb"] => values::<RecoveryVerb>(),
        ["bounds"] => bounds(schemas.get("StoppableContainer").ok_or("an unknown kind")?),
        ["conditions"] => all_conditions(),
        ["events"] => reasons(|reason| reason.conditions.is_empty()),
        ["labels"] => constants("label", names::LABELS),
        ["annotations"] => constants("annotation", names::ANNOTATIONS),
        ["finalizers"] => constants("finalizer", names::FINALIZERS),
        ["gates"] => constants("scheduling gate", names::GATES),
        ["sample", name] => {
            let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/samples");
            let text = std::fs::read_to_string(samples.join(name))?;
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            format!("```yaml\n{}\n```\n", lines.join("\n"))
        }
        _ => return Err(format!("unknown words after {MARK:?}: {words:?}").into()),
    })
}

// === Fields ===

fn fields(schema: &Value, part: &str) -> String {
    let mut table = "| field | type | default | meaning and bounds |\n|---|---|---|---|\n".to_owned();
    add_fields(&mut table, schema, "", Some(part));
    table
}

fn add_fields(table: &mut String, schema: &Value, path: &str, only: Option<&str>) {
    let required: Vec<_> = list(schema, "required").filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let foreign = FOREIGN.iter().find(|(known, _)| *known == path);
        if only.is_none() {
            let type_ = foreign.map_or_else(|| type_of(field), |(_, link)| (*link).to_owned());
            let default = match field.get("default") {
                Some(value) => format!("`{value}`"),
                None if required.contains(&name.as_str()) => "required".to_owned(),
                None => String::new(),
            };
            _ = writeln!(table, "| `{path}` | {type_} | {default} | {} |", meaning(field));
        }
        if foreign.is_none() {
            add_fields(table, field, &path, None);
            if let Some(items) = field.get("items") {
                add_fields(table, items, &format!("{path}[]"), None);
            }
        }
    }
}

fn type_of(field: &Value) -> String {
    let own = match (field["type"].as_str(), field["format"].as_str()) {
        (Some("array"), _) => format!("list of {}", type_of(&field["items"])),
        (Some("object"), _) if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        (Some("integer"), Some(format)) => format!("integer ({format})"),
        (Some(type_), _) => type_.to_owned(),
        (None, _) => "any".to_owned(),
    };
    let values: Vec<_> = list(field, "enum").map(|value| format!("`{value}`")).collect();
    if values.is_empty() {
        own
    } else {
        values.join(", ").replace('"', "")
    }
}

fn meaning(field: &Value) -> String {
    let mut sentences: Vec<String> = field["description"]
        .as_str()
        .map(str::to_owned)
        .into_iter()
        .collect();
    for (key, words) in [
        ("minItems", "At least {} elements."),
        ("maxItems", "At most {} elements."),
        ("maxProperties", "At most {} entries."),
        ("maxLength", "At most {} characters."),
    ] {
        sentences.extend(
            field[key]
                .as_u64()
                .map(|bound| words.replace("{}", &number(bound))),
        );
    }
    for rule in list(field, "x-kubernetes-validations") {
        let words = rule["message"].as_str().unwrap_or_default();
        sentences.push(format!("Validation message: \"{words}\"."));
    }
    cell(&sentences.join(" "))
}

fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema[key].as_array().into_iter().flatten()
}

/// The values of an enum with their documentation.
fn values<T: JsonSchema>() -> String {
    let schema = schemars::schema_for!(T).to_value();
    let mut table = "| value | meaning |\n|---|---|\n".to_owned();
    for variant in list(&schema, "oneOf") {
        let value = variant["const"].as_str().unwrap_or_default();
        let meaning = variant["description"].as_str().unwrap_or_default();
        _ = writeln!(table, "| `{value}` | {} |", cell(meaning));
    }
    table
}

// === Bounds ===

fn bounds(schema: &Value) -> String {
    let mut lists = BTreeMap::new();
    bounded(
        &schema["properties"]["spec"]["properties"]["template"],
        "",
        &mut lists,
    );
    let mut table = "| part of the template | at most |\n|---|---|\n".to_owned();
    for (what, most) in [
        ("bytes of compact JSON", MAX_TEMPLATE_BYTES),
        ("values (fields and elements)", MAX_TEMPLATE_NODES),
    ] {
        _ = writeln!(table, "| the whole, in {what} | {} |", number(most as u64));
    }
    for (name, most) in lists.into_iter().filter(|(_, most)| *most != OTHER_LISTS) {
        _ = writeln!(table, "| elements of `{name}` | {} |", number(most));
    }
    _ = writeln!(table, "| elements of any other list | {} |", number(OTHER_LISTS));
    table
}

fn bounded(schema: &Value, name: &str, lists: &mut BTreeMap<String, u64>) {
    if let Some(most) = schema["maxItems"].as_u64() {
        lists.insert(name.to_owned(), most);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        bounded(field, name, lists);
    }
    if schema["items"].is_object() {
        bounded(&schema["items"], name, lists);
    }
}

// === Constants ===

fn all_conditions() -> String {
    let mut text = String::new();
    for (type_, meaning) in conditions::TYPES {
        _ = writeln!(text, "### `{type_}`\n\n{}\n", wrapped(&prose(meaning)));
        if *type_ == READY {
            _ = writeln!(text, "Reasons of `Ready` itself:\n");
        }
        text.push_str(&reasons(|reason| reason.conditions.contains(type_)));
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn reasons(wanted: impl Fn(&conditions::Reason) -> bool) -> String {
    let mut table = "| reason | meaning |\n|---|---|\n".to_owned();
    for reason in reason::ALL.iter().filter(|reason| wanted(reason)) {
        _ = writeln!(table, "| `{}` | {} |", reason.name, cell(reason.meaning));
    }
    table
}

fn constants(what: &str, all: &[(&str, &str)]) -> String {
    let mut table = format!("| {what} | meaning |\n|---|---|\n");
    for (value, meaning) in all {
        _ = writeln!(table, "| `{value}` | {} |", cell(meaning));
    }
    table
}

// === Words ===

/// Text as one line: first paragraph, without the brackets of Rust's links.
fn prose(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = first.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

fn cell(text: &str) -> String {
    prose(text).replace('|', "\\|")
}

/// Text in lines of at most [`WIDTH`] columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => _ = write!(line, " {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A number with commas between thousands.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
