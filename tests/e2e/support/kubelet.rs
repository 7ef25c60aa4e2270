//! The configuration that the kubelet of a node runs with.

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::kubectl;

/// ` with FIELD: VALUE in its configuration`, and nothing if the kubelet does not report the field,
/// because its release does not know the field or the field is empty.
pub(crate) async fn with_setting(node: &str, field: &str) -> Result<String> {
    let path = format!("/api/v1/nodes/{node}/proxy/configz");
    let answer = kubectl(&["get", "--raw", &path], "").await?.success()?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("reading the configuration of {node}"))?;
    let configuration = answer["kubeletconfig"]
        .as_object()
        .with_context(|| format!("the kubelet of {node} answered {answer}"))?;
    Ok(configuration.get(field).map_or_else(String::new, |value| {
        let value = value.to_string().replace('"', "");
        format!(" with `{field}: {value}` in its configuration")
    }))
}
