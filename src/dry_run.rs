/*!
The API server decides whether a pod is valid: the pod of a template is created there in a dry run
(`dryRun=All`), and strictly (`fieldValidation=Strict`). A field that makes the pod invalid, or
cannot be decoded, is a mistake of the author (invariant I19: a misspelt field is refused, and not
dropped); an obstacle of the moment (a policy, a quota, a missing service account) may be gone at
the start.

The pod carries none of our labels, so our own webhook for consumers is not asked.
*/

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::core::{Request, Status};
use kube::{Api, Client, Error};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use stoppablecontainer_api::json::Json;
use stoppablecontainer_api::names::{LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE};
use tokio::time::Instant;

use crate::field_error::FieldError;

/// The API server's answer to a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DryRunResult {
    /// Mistakes that every cluster would refuse.
    pub(crate) problems: Vec<FieldError>,
    /// Why it is not known whether the API server accepts the pod.
    pub(crate) obstacle: Option<Inconclusive>,
}

/// Why it is not known whether the API server accepts a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inconclusive {
    /// It does not accept the pod now.
    #[error("spec.template: a pod of this template would be refused now: {0}")]
    Refused(String),
    /// It did not answer.
    #[error("spec.template: was not checked by the API server: {0}")]
    NoAnswer(String),
}

/// How the API server treats fields that it does not know.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    Refused,
    Dropped,
}

/// The pod of a template as the controller will create it, but without our labels. `None` if the
/// template has no spec.
pub(crate) fn pod(name: &str, template: &Value) -> Option<Json> {
    let given = &template["metadata"];
    let mut spec = template["spec"].as_object()?.clone();
    spec.remove("nodeName");
    spec.insert("restartPolicy".to_owned(), json!("Always"));
    // Not the name itself: a consumer may be running under it.
    let mut metadata = json!({ "generateName": format!("{name}-") });
    for field in ["annotations", "finalizers", "labels"] {
        if !given[field].is_null() {
            metadata[field] = given[field].clone();
        }
    }
    if let Some(labels) = metadata["labels"].as_object_mut() {
        labels.retain(|key, _| ![LABEL_MANAGED_BY, LABEL_INSTANCE, LABEL_ROLE].contains(&key.as_str()));
    }
    Json::of(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).ok()
}

/// Creates a pod in a dry run, within this time.
pub(crate) async fn ask(client: &Client, namespace: &str, pod: &Json, within: Duration) -> DryRunResult {
    let until = Instant::now() + within;
    let mut opinion = answer(client, namespace, pod, Unknown::Refused, until).await;
    // An author who misspelt a field may have made other mistakes, which the API server looks for
    // later.
    if opinion.problems.iter().any(FieldError::is_unknown_field) {
        let rest = answer(client, namespace, pod, Unknown::Dropped, until).await;
        opinion.problems.extend(rest.problems);
    }
    opinion
}

async fn answer(
    client: &Client,
    namespace: &str,
    pod: &Json,
    unknown: Unknown,
    until: Instant,
) -> DryRunResult {
    let request = match request(client, namespace, pod, unknown) {
        Ok(request) => request,
        Err(error) => return DryRunResult::no_answer(&error.to_string()),
    };
    match tokio::time::timeout_at(until, client.request::<IgnoredAny>(request)).await {
        Ok(Ok(_)) => DryRunResult::default(),
        Ok(Err(Error::Api(status))) => opinion(&status),
        Ok(Err(error)) => DryRunResult::no_answer(&error.to_string()),
        Err(_) => DryRunResult::no_answer("no answer in time"),
    }
}

fn request(
    client: &Client,
    namespace: &str,
    pod: &Json,
    unknown: Unknown,
) -> Result<http::Request<Vec<u8>>, Error> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let request = Request::new(api.resource_url())
        .create(&params, pod.as_str().as_bytes().to_vec())
        .map_err(Error::BuildRequest)?;
    Ok(match unknown {
        Unknown::Refused => strict(request),
        Unknown::Dropped => request,
    })
}

/// Fields that the API server does not know are refused, and not dropped.
pub(crate) fn strict(mut request: http::Request<Vec<u8>>) -> http::Request<Vec<u8>> {
    let uri = request.uri().to_string();
    let separator = if uri.ends_with('?') { "" } else { "&" };
    // What was a URI still is one.
    if let Ok(uri) = format!("{uri}{separator}fieldValidation=Strict").parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// The mistakes of the pod that a refusal names. `None` if it is about something else.
pub(crate) fn mistakes(status: &Status) -> Option<Vec<FieldError>> {
    // A webhook's refusal carries whatever code the webhook chose, and always this beginning. A
    // ValidatingAdmissionPolicy's is 422 unless it says otherwise, in the words of a prohibition
    // (`pods "x" is forbidden: ValidatingAdmissionPolicy ...`).
    let is_policy =
        status.message.starts_with("admission webhook") || status.message.contains(" is forbidden: ");
    if is_policy {
        return None;
    }
    match status.code {
        422 => Some(invalid(status)),
        400 => undecodable(&status.message),
        _ => None,
    }
}

fn opinion(status: &Status) -> DryRunResult {
    if let Some(problems) = mistakes(status) {
        return DryRunResult {
            problems,
            obstacle: None,
        };
    }
    let message = status.message.clone();
    let busy = status.code == 429 || status.code >= 500;
    let obstacle = if busy {
        Inconclusive::NoAnswer
    } else {
        Inconclusive::Refused
    };
    DryRunResult {
        problems: Vec::new(),
        obstacle: Some(obstacle(message)),
    }
}

fn invalid(status: &Status) -> Vec<FieldError> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let problems: Vec<_> = causes
        .map(|cause| FieldError::new(in_template(&cause.field), cause.message.clone()))
        .collect();
    if problems.is_empty() {
        return vec![FieldError::new("spec.template", status.message.clone())];
    }
    problems
}

/// The API server words it like this (`runtime.NewStrictDecodingError` and `transformDecodeError`
/// of `apiserver`): `Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown
/// field "spec.a", unknown field "spec.b"`.
fn undecodable(message: &str) -> Option<Vec<FieldError>> {
    const STRICT: &str = "strict decoding error: ";
    if let Some((_, list)) = message.split_once(STRICT) {
        let sorts = [
            ("unknown field \"", UNKNOWN_FIELD),
            ("duplicate field \"", "duplicate field"),
        ];
        let named = sorts.iter().flat_map(|(begins, what)| {
            let names = list
                .split(begins)
                .skip(1)
                .filter_map(|rest| rest.split('"').next());
            names.map(|name| FieldError::new(in_template(name), *what))
        });
        let named: Vec<_> = named.collect();
        if !named.is_empty() {
            return Some(named);
        }
    }
    let (_, what) = message.split_once("cannot be handled as a Pod: ")?;
    Some(vec![FieldError::new("spec.template", what)])
}

const UNKNOWN_FIELD: &str =
    "unknown field: this cluster's Kubernetes has no such field in a pod; look for a misspelling";

/// The path in the object of a field of the pod.
fn in_template(field: &str) -> String {
    if field.is_empty() {
        "spec.template".to_owned()
    } else {
        format!("spec.template.{field}")
    }
}

// === impl FieldError ===

impl FieldError {
    fn is_unknown_field(&self) -> bool {
        self.message == UNKNOWN_FIELD
    }
}

// === impl DryRunResult ===

impl DryRunResult {
    fn no_answer(reason: &str) -> Self {
        Self {
            problems: Vec::new(),
            obstacle: Some(Inconclusive::NoAnswer(reason.to_owned())),
        }
    }
}
