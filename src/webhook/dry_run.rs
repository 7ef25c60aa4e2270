/*!
The authority on pods is the API server: before an object is stored, the pod of
its template is created there for show (`dryRun=All`). What makes the pod
invalid makes the object invalid; what merely stands in its way now (a policy,
a quota, a missing service account) may be gone at the start, and is a warning.

The pod carries none of our labels, so our own webhook for consumers is not
asked. This is the only call to the API server that a review waits for, and only
reviews of our own objects do.
*/

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use stoppablecontainer_api::names::{LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE};

use super::Problem;

/// How long the answer may take. The review as a whole has `timeoutSeconds` (3 at most).
const TIMEOUT: Duration = Duration::from_millis(1500);

/// What the API server makes of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    /// It would take the pod.
    Good,
    /// No cluster would.
    Invalid(Vec<Problem>),
    /// It would not take the pod now, or did not say.
    Doubtful(String),
}

/// Asks for the opinion on the template of an object.
pub(super) async fn ask(client: &Client, namespace: &str, name: &str, template: &PodTemplateSpec) -> Opinion {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = pod(name, template);
    match tokio::time::timeout(TIMEOUT, pods.create(&params, &pod)).await {
        Ok(Ok(_)) => Opinion::Good,
        Ok(Err(kube::Error::Api(status))) => opinion(&status),
        Ok(Err(error)) => unknown(&error.to_string()),
        Err(_) => unknown(&format!("no answer within {} ms", TIMEOUT.as_millis())),
    }
}

/// The pod as the controller will ask for it, but for what tells it as ours.
fn pod(name: &str, template: &PodTemplateSpec) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.retain(|key, _| ![LABEL_MANAGED_BY, LABEL_INSTANCE, LABEL_ROLE].contains(&key.as_str()));
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.node_name = None;
    spec.restart_policy = Some("Always".to_owned());
    Pod {
        metadata: ObjectMeta {
            // Not the name itself: a consumer may be running under it.
            generate_name: Some(format!("{name}-")),
            labels: Some(labels),
            annotations: given.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn opinion(status: &Status) -> Opinion {
    // A webhook's refusal carries whatever code the webhook chose, and always this beginning.
    let is_webhook = status.message.starts_with("admission webhook");
    if status.code != 422 || is_webhook {
        return Opinion::Doubtful(format!(
            "spec.template: a pod of this template would be refused now: {}",
            status.message
        ));
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let problems: Vec<_> = causes
        .map(|cause| Problem::new(in_template(&cause.field), cause.message.clone()))
        .collect();
    if problems.is_empty() {
        return Opinion::Invalid(vec![Problem::new("spec.template", status.message.clone())]);
    }
    Opinion::Invalid(problems)
}

/// The path in the object of a field of the pod.
fn in_template(field: &str) -> String {
    if field.is_empty() {
        "spec.template".to_owned()
    } else {
        format!("spec.template.{field}")
    }
}

fn unknown(reason: &str) -> Opinion {
    Opinion::Doubtful(format!(
        "spec.template: was not checked by the API server: {reason}"
    ))
}
