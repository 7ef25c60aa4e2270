/*!
kubectl's templates for `-o jsonpath=` and `-o custom-columns=`: text with paths in braces, quoted
strings, and `{range PATH}...{end}`.

The paths are evaluated as RFC 9535 describes. kubectl's own form differs in that `$` may be
missing, and that a backslash before a dot makes the dot part of a key.
*/

use jsonpath_rust::JsonPath;
use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(String),
    Range(String, Vec<Part>),
}

// === impl Template ===

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A path without braces is accepted, as kubectl does.
        let braced = if text.contains('{') {
            text.to_owned()
        } else {
            format!("{{{text}}}")
        };
        let mut rest = braced.as_str();
        let parts = parts(&mut rest, false)?;
        let template = Self(parts);
        // A path that cannot be evaluated is an error of the command line, not of each object.
        evaluate(&template.0, &Value::Null)?;
        Ok(template)
    }

    /// The text for a value. A path that does not exist in it is empty.
    pub fn render(&self, value: &Value) -> String {
        evaluate(&self.0, value).unwrap_or_default()
    }
}

/// A single path, for a column.
///
/// # Errors
/// If it is not a path.
pub fn column(path: &str) -> Result<String, String> {
    let path = path.trim_start_matches('{').trim_end_matches('}');
    let path = rfc(path)?;
    Value::Null.query(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

/// The values at a path of [`column`], separated by commas, or `<none>`.
pub fn cell(path: &str, value: &Value) -> String {
    let found = value.query(path).unwrap_or_default();
    let texts: Vec<_> = found.into_iter().filter(|v| !v.is_null()).map(text_of).collect();
    if texts.is_empty() {
        "<none>".to_owned()
    } else {
        texts.join(",")
    }
}

fn parts(rest: &mut &str, inside: bool) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(start) = rest.find('{') else {
            parts.push(Part::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        *rest = &rest[start + 1..];
        let end = end_of(rest).ok_or_else(|| "a { is not closed".to_owned())?;
        let inner = rest[..end].trim();
        let after = &rest[end + 1..];
        *rest = after;
        if inner == "end" {
            return if inside {
                Ok(parts)
            } else {
                Err("{end} without {range}".to_owned())
            };
        }
        if let Some(path) = inner.strip_prefix("range ") {
            let path = rfc(path.trim())?;
            parts.push(Part::Range(path, self::parts(rest, true)?));
        } else if inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(unquoted(inner)?));
        } else {
            parts.push(Part::Path(rfc(inner)?));
        }
    }
    if inside {
        return Err("{range} without {end}".to_owned());
    }
    Ok(parts)
}

/// Position of the brace that closes an expression; braces in quotes do not.
fn end_of(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Result<String, String> {
    let quote = text.chars().next().unwrap_or('"');
    let inner = text
        .strip_prefix(quote)
        .and_then(|text| text.strip_suffix(quote))
        .ok_or_else(|| format!("{text}: a quote is not closed"))?;
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    Ok(plain)
}

/// kubectl's form of a path in that of RFC 9535.
fn rfc(path: &str) -> Result<String, String> {
    let mut rest = path.trim_start_matches(['$', '@']);
    let mut out = "$".to_owned();
    if !rest.is_empty() && !rest.starts_with(['.', '[']) {
        return Err(format!("{path}: a path begins with a dot"));
    }
    while !rest.is_empty() {
        if rest.starts_with('[') {
            let end = bracket(rest).ok_or_else(|| format!("{path}: a [ is not closed"))?;
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        if let Some(deep) = rest.strip_prefix("..") {
            out.push_str("..");
            rest = deep;
        } else {
            rest = &rest[1..];
        }
        let (key, length) = key(rest);
        match key.as_str() {
            "" if rest.is_empty() || rest.starts_with('[') => {}
            "" => return Err(format!("{path}: a name is missing")),
            "*" => out.push_str("[*]"),
            name => {
                out.push('[');
                out.push_str(&Value::from(name).to_string());
                out.push(']');
            }
        }
        rest = &rest[length..];
    }
    Ok(out)
}

/// The key at the beginning of a text, and its length in the text.
fn key(text: &str) -> (String, usize) {
    let (mut key, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                key.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (key, at),
            _ => key.push(c),
        }
    }
    (key, text.len())
}

/// Length of the bracket at the beginning of a text.
fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 1 => return Some(at + 1),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn evaluate(parts: &[Part], value: &Value) -> Result<String, String> {
    let query = |path: &str| value.query(path).map_err(|error| error.to_string());
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let found: Vec<_> = query(path)?.into_iter().map(text_of).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, parts) => {
                for item in query(path)? {
                    out.push_str(&evaluate(parts, item)?);
                }
            }
        }
    }
    Ok(out)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "spec": {"running": true}},
            {"metadata": {"name": "b"}, "spec": {"running": false},
             "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other"}]}},
        ]})
    }

    #[test]
    fn templates_are_those_of_kubectl() {
        for (template, expected) in [
            (".kind", "List"),
            ("{.kind}", "List"),
            ("{$.items[0].metadata.name}", "a"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.items[0].metadata.labels}", r#"{"app.kubernetes.io/name":"x"}"#),
            (
                r#"{range .items[*]}{.metadata.name}{"\t"}{.spec.running}{"\n"}{end}"#,
                "a\ttrue\nb\tfalse\n",
            ),
            (
                r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#,
                "False",
            ),
            ("name: {.missing.field}!", "name: !"),
            ("{..name}", "a b"),
        ] {
            let rendered = Template::parse(template).unwrap().render(&list());
            assert_eq!(rendered, expected, "{template}");
        }
    }

    #[test]
    fn errors_are_found_before_the_first_object() {
        for template in [
            "{.a",
            "{range .items[*]}x",
            "{end}",
            "{.a[}",
            "{\"x}",
            "{name}",
            "{.items[?(]}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_column_without_a_value_is_none() {
        let path = column(".items[*].metadata.name").unwrap();
        assert_eq!(cell(&path, &list()), "a,b");
        assert_eq!(cell(&column("{.missing}").unwrap(), &list()), "<none>");
        assert!(column("name").is_err());
    }
}
