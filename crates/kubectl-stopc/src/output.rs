//! `-o`: the formats of kubectl.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::jsonpath::{Template, cell, column};
use crate::table::{Row, render};

/// A format of `-o`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The table.
    #[default]
    Table,
    /// The table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `stoppablecontainer.stoppablecontainer.xtlsoft.top/NAME`
    Name,
    /// A template.
    JsonPath(Template),
    /// Columns: header and path.
    Columns(Vec<(String, String)>),
}

// === impl Format ===

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return Template::parse(template).map(Self::JsonPath);
        }
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            let columns = columns.split(',').map(|spec| {
                let (header, path) = spec
                    .split_once(':')
                    .ok_or_else(|| format!("{spec}: a column is HEADER:PATH"))?;
                Ok((header.to_owned(), column(path)?))
            });
            return columns.collect::<Result<_, String>>().map(Self::Columns);
        }
        match text {
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => Err(
                "possible formats: wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,..."
                    .to_owned(),
            ),
        }
    }
}

impl Format {
    /// Whether the format is a table of this program.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// Objects in a format that is not a table: a single named object as such, everything else as a
/// list.
///
/// # Errors
/// If the objects cannot be written as YAML.
pub fn objects(format: &Format, values: Vec<Value>, single: bool) -> Result<String, Failure> {
    match format {
        Format::Name => {
            let names = values.iter().map(|value| {
                format!(
                    "stoppablecontainer.stoppablecontainer.xtlsoft.top/{}",
                    value["metadata"]["name"].as_str().unwrap_or_default()
                )
            });
            Ok(lines(names))
        }
        Format::Columns(columns) => {
            let headers: Vec<_> = columns.iter().map(|(header, _)| header.as_str()).collect();
            let row = |value| Row::plain(columns.iter().map(|(_, path)| cell(path, value)));
            let rows: Vec<_> = values.iter().map(row).collect();
            Ok(with_end(render(&headers, &rows)))
        }
        Format::JsonPath(template) => Ok(template.render(&whole(values, single))),
        Format::Yaml => yaml(&whole(values, single)),
        Format::Json | Format::Table | Format::Wide => Ok(with_end(format!("{:#}", whole(values, single)))),
    }
}

/// A value with a list of items, in a format that is not a table. Columns are of the items, and
/// names are their fields `name`.
///
/// # Errors
/// If it cannot be written as YAML.
pub fn listing(format: &Format, whole: &Value, items: &str, name: &str) -> Result<String, Failure> {
    let items = || whole[items].as_array().into_iter().flatten();
    match format {
        Format::Name => Ok(lines(
            items().map(|item| item[name].as_str().unwrap_or_default().to_owned()),
        )),
        Format::Columns(columns) => {
            let headers: Vec<_> = columns.iter().map(|(header, _)| header.as_str()).collect();
            let row = |item| Row::plain(columns.iter().map(|(_, path)| cell(path, item)));
            let rows: Vec<_> = items().map(row).collect();
            Ok(with_end(render(&headers, &rows)))
        }
        Format::JsonPath(template) => Ok(template.render(whole)),
        Format::Yaml => yaml(whole),
        Format::Json | Format::Table | Format::Wide => Ok(with_end(format!("{whole:#}"))),
    }
}

/// A value as YAML.
///
/// # Errors
/// If it cannot be written as such.
pub fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value);
    text.map(with_end)
        .map_err(|error| Failure::failed(format!("cannot write YAML: {error}")))
}

fn whole(mut values: Vec<Value>, single: bool) -> Value {
    match values.pop() {
        Some(value) if single && values.is_empty() => value,
        last => {
            values.extend(last);
            json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": values })
        }
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    with_end(lines.collect::<Vec<_>>().join("\n"))
}

fn with_end(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<Value> {
        ["a", "b"]
            .map(|name| json!({"kind": "StoppableContainer", "metadata": {"name": name}}))
            .to_vec()
    }

    fn rendered(format: &str, values: Vec<Value>, single: bool) -> String {
        objects(&format.parse().unwrap(), values, single).unwrap()
    }

    #[test]
    fn formats_print_what_kubectl_prints() {
        assert_eq!(
            rendered("name", values(), false),
            "stoppablecontainer.stoppablecontainer.xtlsoft.top/a\nstoppablecontainer.stoppablecontainer.xtlsoft.top/b\n"
        );
        assert_eq!(
            rendered(
                "custom-columns=NAME:.metadata.name,PHASE:.status.phase",
                values(),
                false
            ),
            "NAME   PHASE\na      <none>\nb      <none>\n"
        );
        assert_eq!(
            rendered("jsonpath={.items[1].metadata.name}", values(), false),
            "b"
        );
        assert_eq!(
            rendered("jsonpath={.metadata.name}", values()[..1].to_vec(), true),
            "a"
        );
        assert_eq!(
            rendered("yaml", values()[..1].to_vec(), true),
            "kind: StoppableContainer\nmetadata:\n  name: a\n"
        );
        let json: Value = serde_json::from_str(&rendered("json", values(), false)).unwrap();
        assert_eq!(
            (json["kind"].as_str(), json["items"].as_array().map(Vec::len)),
            (Some("List"), Some(2))
        );
    }

    #[test]
    fn an_unknown_format_lists_those_that_there_are() {
        assert!("xml".parse::<Format>().unwrap_err().contains("custom-columns"));
        assert!("custom-columns=NAME".parse::<Format>().is_err());
        assert!("jsonpath={.a".parse::<Format>().is_err());
    }
}
