/*!
The bundle of `doctor`: a stream of YAML documents for a report of a problem.

It has no Secrets, and of what users write only what a problem may depend on: values of environment
variables, commands, arguments, headers and annotations are removed.
*/

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::names::{GROUP, LABEL_MANAGED_BY, MANAGED_BY};

use crate::cmd::version::{PRODUCT, client};
use crate::explain;
use crate::failure::Failure;
use crate::output::yaml;
use crate::session::Session;

use super::checks::Finding;

/// In the place of what was removed.
const REMOVED: &str = "<removed>";
/// Lines of each log.
const LOG_LINES: i64 = 1000;

/// Kinds in the bundle: group, version, kind, and the label selector.
const KINDS: &[(&str, &str, &str, Option<&str>)] = &[
    (GROUP, "v1alpha1", "StoppableContainer", None),
    (GROUP, "v1alpha1", "StoppableContainerInstance", None),
    ("apps", "v1", "Deployment", Some(PRODUCT)),
    ("apps", "v1", "DaemonSet", Some(PRODUCT)),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        Some(PRODUCT),
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        Some(PRODUCT),
    ),
    ("coordination.k8s.io", "v1", "Lease", Some(PRODUCT)),
    ("", "v1", "Node", None),
    ("storage.k8s.io", "v1", "CSINode", None),
];

/// The text of the bundle.
///
/// # Errors
/// If it cannot be written as YAML. What cannot be read is in the bundle as an error.
pub(super) async fn collect(session: &Session, findings: &[Finding]) -> Result<String, Failure> {
    let findings: Vec<_> = findings
        .iter()
        .map(
            |finding| json!({ "check": finding.check, "result": finding.level.word(), "text": finding.text }),
        )
        .collect();
    let head = json!({
        "bundle": "kubectl stopc doctor", "version": client(), "time": Timestamp::now().to_string(),
        "namespace": session.namespace, "findings": findings,
    });
    let mut documents = vec![head];
    for (group, version, kind, labels) in KINDS {
        documents.push(objects(session, group, version, kind, *labels).await);
    }
    let ours = format!("{LABEL_MANAGED_BY}={MANAGED_BY}");
    documents.push(objects(session, "", "v1", "Pod", Some(&ours)).await);
    documents.push(objects(session, "", "v1", "Pod", Some(PRODUCT)).await);
    documents.push(events(session).await);
    documents.extend(logs(session).await);
    let texts: Result<Vec<_>, _> = documents.iter().map(yaml).collect();
    Ok(texts?.join("---\n"))
}

/// All objects of a kind, or those of the session's namespace if only that is allowed.
async fn objects(session: &Session, group: &str, version: &str, kind: &str, labels: Option<&str>) -> Value {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let params = ListParams {
        label_selector: labels.map(str::to_owned),
        ..ListParams::default()
    };
    let all: Api<DynamicObject> = Api::all_with(session.client.clone(), &resource);
    let here: Api<DynamicObject> =
        Api::namespaced_with(session.client.clone(), &session.namespace, &resource);
    let listed = match all.list(&params).await {
        Ok(list) => Ok(list),
        Err(_) if !is_cluster_wide(kind) => here.list(&params).await,
        Err(error) => Err(error),
    };
    let own = labels == Some(PRODUCT);
    match listed {
        Ok(list) => {
            let items = list.items.into_iter().map(|object| {
                let mut value = serde_json::to_value(object).unwrap_or_default();
                clean(&mut value, own);
                value
            });
            json!({ "kind": format!("{kind}List"), "labels": labels, "items": items.collect::<Vec<_>>() })
        }
        Err(error) => json!({
            "kind": format!("{kind}List"), "labels": labels,
            "error": explain::request("list it", &error).to_string(),
        }),
    }
}

fn is_cluster_wide(kind: &str) -> bool {
    matches!(kind, "Node" | "CSINode") || kind.ends_with("WebhookConfiguration")
}

/// Events about the product's objects and their pods.
async fn events(session: &Session) -> Value {
    use k8s_openapi::api::events::v1::Event;
    let all = Api::<Event>::all(session.client.clone());
    let listed = match all.list(&ListParams::default()).await {
        Ok(list) => Ok(list),
        Err(_) => {
            session
                .api::<Event>(&session.namespace)
                .list(&ListParams::default())
                .await
        }
    };
    let is_ours = |event: &Event| {
        let reporter = event.reporting_controller.as_deref().unwrap_or_default();
        let kind = event.regarding.as_ref().and_then(|about| about.kind.as_deref());
        reporter.contains("stoppablecontainer")
            || kind.is_some_and(|kind| kind.starts_with("StoppableContainer"))
    };
    match listed {
        Ok(list) => {
            let items = list.items.into_iter().filter(is_ours).map(|event| {
                let mut value = serde_json::to_value(event).unwrap_or_default();
                clean(&mut value, false);
                value
            });
            json!({ "kind": "EventList", "items": items.collect::<Vec<_>>() })
        }
        Err(error) => json!({
            "kind": "EventList", "error": explain::request("list it", &error).to_string(),
        }),
    }
}

/// The last lines of the controllers' and agents' logs.
async fn logs(session: &Session) -> Vec<Value> {
    let params = ListParams::default().labels(PRODUCT);
    let Ok(pods) = Api::<Pod>::all(session.client.clone()).list(&params).await else {
        return Vec::new();
    };
    let mut logs = Vec::new();
    for pod in pods {
        let namespace = pod.namespace().unwrap_or_default();
        let params = LogParams {
            tail_lines: Some(LOG_LINES),
            timestamps: true,
            ..LogParams::default()
        };
        let log = session
            .api::<Pod>(&namespace)
            .logs(&pod.name_any(), &params)
            .await;
        let log = log.unwrap_or_else(|error| explain::request("read it", &error).to_string());
        logs.push(json!({ "log": format!("{namespace}/{}", pod.name_any()), "text": log }));
    }
    logs
}

/// Removes what does not belong into a report. `own` objects are the product's, whose arguments are
/// settings of the chart.
fn clean(value: &mut Value, own: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, own)),
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "env" => clean_env(field),
                    "command" | "args" | "entrypoint" | "cmd" if !own => *field = json!(REMOVED),
                    "httpHeaders" | "stringData" | "data" | "binaryData" => *field = json!(REMOVED),
                    "annotations" => clean_annotations(field),
                    // A termination message is written by the user's program.
                    "terminated" => {
                        if let Some(message) = field.get_mut("message") {
                            *message = json!(REMOVED);
                        }
                    }
                    _ => clean(field, own),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Values of variables: of a container, and of an image (`NAME=VALUE`).
fn clean_env(env: &mut Value) {
    for variable in env.as_array_mut().into_iter().flatten() {
        match variable {
            Value::String(text) => {
                let name = text.split('=').next().unwrap_or_default();
                *text = format!("{name}={REMOVED}");
            }
            Value::Object(fields) => {
                if let Some(value) = fields.get_mut("value") {
                    *value = json!(REMOVED);
                }
            }
            _ => *variable = json!(REMOVED),
        }
    }
}

/// Values of annotations other than the product's.
fn clean_annotations(annotations: &mut Value) {
    for (name, value) in annotations.as_object_mut().into_iter().flatten() {
        if !name.starts_with(GROUP) {
            *value = json!(REMOVED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_removed() {
        let secret = "hunter2";
        let mut object = json!({
            "metadata": {
                "name": "web", "managedFields": [secret],
                "annotations": { "a/b": secret, "stoppablecontainer.xtlsoft.top/recovery": "reset-1" },
            },
            "spec": { "template": {
                "metadata": { "annotations": { "c": secret } },
                "spec": { "containers": [{
                    "name": "main", "image": "nginx", "command": [secret], "args": [secret],
                    "env": [{ "name": "PASSWORD", "value": secret }, { "name": "B", "valueFrom": { "x": "y" } }],
                    "livenessProbe": {
                        "exec": { "command": [secret] },
                        "httpGet": { "path": "/", "httpHeaders": [{ "name": "Authorization", "value": secret }] },
                    },
                }] },
            } },
            "status": {
                "filesystem": { "image": { "env": ["TOKEN=hunter2"], "cmd": [secret], "entrypoint": [secret] } },
                "containerStatuses": [{ "lastState": { "terminated": { "exitCode": 1, "message": secret } } }],
            },
        });
        clean(&mut object, false);
        assert!(!object.to_string().contains(secret), "{object:#}");
        let main = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(main["env"][0]["name"], "PASSWORD", "names stay");
        assert_eq!(main["env"][1]["valueFrom"]["x"], "y", "references stay");
        assert_eq!(
            object["status"]["filesystem"]["image"]["env"][0],
            "TOKEN=<removed>"
        );
        assert_eq!(
            object["metadata"]["annotations"]["stoppablecontainer.xtlsoft.top/recovery"],
            "reset-1"
        );
    }

    #[test]
    fn settings_of_the_chart_stay() {
        let mut object = json!({ "args": ["--kubelet-dir=/x"], "env": [{ "name": "A", "value": "b" }] });
        clean(&mut object, true);
        assert_eq!(object["args"][0], "--kubelet-dir=/x");
        assert_eq!(object["env"][0]["value"], REMOVED);
    }

    #[test]
    fn no_kind_with_secrets_is_read() {
        assert!(
            KINDS
                .iter()
                .all(|(_, _, kind, _)| *kind != "Secret" && *kind != "ConfigMap")
        );
    }
}
