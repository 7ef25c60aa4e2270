/*!
The chart's values. `values.yaml` has the defaults and, as comments, the descriptions. They are
copied to the schema, for editors and `helm lint`, and to the table in the chart's README.
*/

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Files;
use crate::workspace::Workspace;

const VALUES: &str = "charts/stoppablecontainer/values.yaml";
const SCHEMA: &str = "charts/stoppablecontainer/values.schema.json";
const README: &str = "charts/stoppablecontainer/README.md";
/// The lines around the generated part of the README, which the book includes.
const MARKS: (&str, &str) = ("<!-- ANCHOR: values -->", "<!-- ANCHOR_END: values -->");

/// A value of the chart.
struct Row {
    path: String,
    /// Missing for an old name.
    default: Option<String>,
    description: String,
}

/// The schema and the README with the descriptions of `values.yaml`.
pub(super) fn files(workspace: &Workspace) -> Result<Files> {
    let read =
        |path: &str| std::fs::read_to_string(workspace.join(path)).with_context(|| format!("reading {path}"));
    let (values, schema, readme) = (read(VALUES)?, read(SCHEMA)?, read(README)?);
    let mut schema: Value = serde_json::from_str(&schema).with_context(|| format!("parsing {SCHEMA}"))?;
    let rows = describe(&mut schema, &values).with_context(|| format!("comparing {VALUES} with {SCHEMA}"))?;
    let readme = with_table(&readme, &rows).with_context(|| format!("changing {README}"))?;
    let mut schema = serde_json::to_string_pretty(&schema)?;
    schema.push('\n');
    Ok(Files::from([(SCHEMA.into(), schema), (README.into(), readme)]))
}

/// Sets the descriptions of the schema, and lists the values.
fn describe(schema: &mut Value, values: &str) -> Result<Vec<Row>> {
    let parsed: Value = serde_saphyr::from_str(values)?;
    let mut rows = Vec::new();
    walk(schema, Some(&parsed), "", &comments(values), &mut rows)?;
    Ok(rows)
}

fn walk(
    schema: &mut Value,
    values: Option<&Value>,
    prefix: &str,
    comments: &BTreeMap<String, String>,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for (name, property) in properties {
        let path = format!("{prefix}{name}");
        let value = values.and_then(|values| values.get(name));
        if property["deprecated"] == true {
            if value.is_some() {
                bail!("{path}: an old name must not have a default");
            }
            let description = property["description"].as_str().unwrap_or_default().to_owned();
            rows.push(Row {
                path,
                default: None,
                description,
            });
            continue;
        }
        if property.get("properties").is_some() {
            walk(property, value, &format!("{path}."), comments, rows)?;
            continue;
        }
        let default = value.with_context(|| format!("{path}: the value does not have a default"))?;
        let description = comments
            .get(&path)
            .with_context(|| format!("{path}: the value does not have a comment"))?;
        property["description"] = Value::String(description.clone());
        rows.push(Row {
            path,
            default: Some(serde_json::to_string(default)?),
            description: description.clone(),
        });
    }
    Ok(())
}

/// The comments of a YAML file by the paths of the keys below them.
fn comments(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut comment = String::new();
    // Indentation and name of the keys around a line.
    let mut parents: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        let indentation = line.len() - content.len();
        if let Some(words) = content.strip_prefix('#') {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(words.trim());
            continue;
        }
        let comment = std::mem::take(&mut comment);
        let Some((key, _)) = content.split_once(':').filter(|_| !content.starts_with('-')) else {
            continue;
        };
        parents.retain(|(outer, _)| *outer < indentation);
        parents.push((indentation, key));
        if !comment.is_empty() {
            let path: Vec<_> = parents.iter().map(|(_, key)| *key).collect();
            found.insert(path.join("."), comment);
        }
    }
    found
}

/// The README with the table between the marks.
fn with_table(readme: &str, rows: &[Row]) -> Result<String> {
    let (start, end) = MARKS;
    let parts = readme.split_once(start).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("the lines {start:?} and {end:?} are missing"))?;
    let mut table = String::from("| value | default | description |\n|---|---|---|\n");
    let mut old = String::new();
    for Row {
        path,
        default,
        description,
    } in rows
    {
        let description = description.replace('|', "\\|").replace('<', "\\<");
        match default {
            Some(default) => writeln!(table, "| `{path}` | `{default}` | {description} |")?,
            None => writeln!(old, "| `{path}` | {description} |")?,
        }
    }
    if !old.is_empty() {
        table += "\nOld names, which the next version does not accept any more:\n\n| value | description |\n|---|---|\n";
    }
    Ok(format!("{before}{start}\n\n{table}{old}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str =
        "# First.\na: 1\n\n# Not a value.\n\nb:\n  # Second,\n  # long.\n  c:\n    - x: 1\n  d: <e>\n";

    #[test]
    fn comments_belong_to_the_key_below_them() {
        let expected = [("a", "First."), ("b.c", "Second, long.")];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(comments(TEXT), BTreeMap::from(expected));
    }

    #[test]
    fn a_value_without_a_comment_or_a_default_is_an_error() {
        let schema = |b: Value| json!({"properties": {"a": {}, "b": {"properties": b}}});
        let mut good = schema(json!({"c": {}, "old": {"deprecated": true, "description": "Use c."}}));
        let rows = describe(&mut good, TEXT).unwrap();
        assert_eq!(
            good["properties"]["b"]["properties"]["c"]["description"],
            "Second, long."
        );
        let table = with_table(&format!("x\n{}\n{}\ny", MARKS.0, MARKS.1), &rows).unwrap();
        assert!(
            table.contains("| `b.c` | `[{\"x\":1}]` | Second, long. |"),
            "{table}"
        );
        assert!(
            table.contains("| `b.old` | Use c. |") && table.ends_with("\ny"),
            "{table}"
        );

        for (name, message) in [
            ("d", "b.d: the value does not have a comment"),
            ("e", "b.e: the value does not have a default"),
        ] {
            let error = describe(&mut schema(json!({name: {}})), TEXT).err().unwrap();
            assert_eq!(error.to_string(), message);
        }
    }
}
