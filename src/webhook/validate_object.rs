/*!
StoppableContainers and StoppableContainerInstances: what the schema and CEL cannot say, all
mistakes in one answer, each with the path of its field.

What already stands in an object is not held against a change of something else, so that an object
can always be stopped, labelled and deleted, whatever rules have come since it was made.
*/

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use stoppablecontainer_api::json::{Json, Misfit};
use stoppablecontainer_api::names::{
    ANNOTATION_MAIN_CONTAINER, ANNOTATION_RECOVERY, ANNOTATION_RESTARTED_AT, GROUP, LABEL_INSTANCE,
    LABEL_MANAGED_BY, LABEL_ROLE, VOLUME_MOUNT_PATH, VOLUME_NAME,
};
use stoppablecontainer_api::{PodTemplate, Provider, RecoveryAnswer};

use super::{AdmissionDecision, Caches, Request, Settings};
use crate::dry_run::{self, Inconclusive};
use crate::field_error::FieldError;
use crate::partial_template::{PartialTemplate, provider_problems};
use crate::rewrite::is_reserved_path;
use crate::user_namespaces::OwnUsers;
use crate::webhook::review::Operation;

/// How long the API server's answer on the pod may take. The review as a whole has `timeoutSeconds`
/// (3 at most).
const TRIAL: Duration = Duration::from_millis(1500);

/// Number of hexadecimal digits of a UID.
const UID_DIGITS: usize = 32;

/// What both kinds have in common. The spec is text until it is known that it matters.
#[derive(Clone, Debug, Default, Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Json>,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    instance_uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    deletion_timestamp: Option<String>,
    annotations: Option<Annotations>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Annotations {
    #[serde(rename = "stoppablecontainer.xtlsoft.top/recovery")]
    recovery: Option<String>,
    // As `ANNOTATION_RESTARTED_AT`. On the object it does nothing.
    #[serde(rename = "stoppablecontainer.xtlsoft.top/restartedAt")]
    restarted_at: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    running: bool,
    template: PodTemplate,
    #[serde(default)]
    provider: Provider,
    #[serde(default)]
    host_path_prefix: String,
}

/// Answers `/validate`.
pub(super) async fn validate(
    settings: &Settings,
    caches: &Caches,
    client: Option<&Client>,
    request: &Request,
) -> AdmissionDecision {
    let ours = request.kind.group == GROUP && request.sub_resource.as_deref().unwrap_or_default().is_empty();
    if !ours || !matches!(request.operation, Operation::Create | Operation::Update) {
        return AdmissionDecision::allow();
    }
    let (object, old) = match (read(&request.object), read(&request.old_object)) {
        (Ok(object), old) => (object, old.unwrap_or_default()),
        (Err(error), _) => return AdmissionDecision::invalid(error.to_string()),
    };
    if object.metadata.deletion_timestamp.is_some() {
        return AdmissionDecision::allow();
    }
    if let Some(problem) = check_recovery(&object, &old) {
        return refused(request, &[problem]);
    }
    let in_vain = annotations_in_vain(&object, &old);
    if object.spec.is_some() && object.spec == old.spec {
        return AdmissionDecision::allow().with_warnings(in_vain);
    }
    let Look {
        mut problems,
        mut warnings,
        pod,
    } = match look(settings, caches, request, &object, &old) {
        Ok(look) => look,
        Err(misfit) => return AdmissionDecision::invalid(format!("spec: cannot be decoded: {misfit}")),
    };
    if let (Some(client), Some(pod)) = (client, pod) {
        let opinion = dry_run::ask(client, &request.namespace, &pod, TRIAL).await;
        let known: BTreeSet<_> = problems.iter().map(|problem| problem.field.clone()).collect();
        problems.extend(
            opinion
                .problems
                .into_iter()
                .filter(|problem| !known.contains(&problem.field)),
        );
        warnings.extend(opinion.obstacle.map(|obstacle| match obstacle {
            Inconclusive::NoAnswer(_) => format!(
                "{obstacle}; the controller asks later and says in the condition Ready if it is refused"
            ),
            Inconclusive::Refused(_) => obstacle.to_string(),
        }));
    }
    if !problems.is_empty() {
        return refused(request, &problems);
    }
    warnings.extend(in_vain);
    AdmissionDecision::allow().with_warnings(warnings)
}

/// The mistakes that are found without the API server.
struct Look {
    problems: Vec<FieldError>,
    warnings: Vec<String>,
    /// The pod that the API server is to be asked about, as text: it is kept until the answer
    /// comes.
    pod: Option<Json>,
}

fn look(
    settings: &Settings,
    caches: &Caches,
    request: &Request,
    object: &Object,
    old: &Object,
) -> Result<Look, Misfit> {
    let read = |object: &Object| object.spec.clone().unwrap_or_else(Json::empty).read::<Spec>();
    let spec = read(object)?;
    // An old object that cannot be read excuses nothing.
    let old = read(old).ok();
    let known = old
        .as_ref()
        .map(|old| problems(old, &PartialTemplate::of(&old.template), settings));
    let known = known.unwrap_or_default();
    let place = if old.is_none() {
        check_namespace(&request.namespace, settings)
    } else {
        None
    };
    let draft = PartialTemplate::of(&spec.template);
    // The controller carries over what its author was already told.
    let is_author = request.user_info.username != settings.controller;
    let users = check_users(caches, request, &draft.template, old.as_ref()).filter(|_| is_author);
    let problems = place
        .into_iter()
        .chain(users)
        .chain(problems(&spec, &draft, settings))
        .filter(|problem| !known.contains(problem))
        .collect();
    let is_new = old.as_ref().is_none_or(|old| old.template != spec.template);
    Ok(Look {
        problems,
        warnings: warnings(&spec, &draft.template, old.as_ref()),
        pod: dry_run::pod(&request.name, &draft.template).filter(|_| is_author && is_new),
    })
}

fn refused(request: &Request, problems: &[FieldError]) -> AdmissionDecision {
    AdmissionDecision::invalid(format!(
        "{} {:?} is invalid: {}",
        request.kind.name,
        request.name,
        FieldError::list(problems)
    ))
}

fn read(object: &Json) -> Result<Object, Misfit> {
    object.read()
}

/// Consumer pods of an excluded namespace never reach the webhook, so an object there could only
/// fail later.
fn check_namespace(namespace: &str, settings: &Settings) -> Option<FieldError> {
    let is_excluded = settings.excluded_namespaces.iter().any(|n| n == namespace);
    is_excluded.then(|| {
        FieldError::new(
            "metadata.namespace",
            format!(
                "Invalid value: {namespace:?}: the administrator excludes this namespace from StoppableContainer; use another one"
            ),
        )
    })
}

/// A pod with users of its own that no node can run would wait without a reason in its status.
fn check_users(
    caches: &Caches,
    request: &Request,
    template: &Value,
    old: Option<&Spec>,
) -> Option<FieldError> {
    let pod = &template["spec"];
    let users = OwnUsers::of(pod["hostUsers"].as_bool(), pod["runtimeClassName"].as_str())?;
    let stood_before = old.is_some_and(|old| OwnUsers::of_template(&old.template) == Some(users));
    let obstacle = caches.users_obstacle(&request.namespace, &request.name, users);
    let obstacle = obstacle.filter(|_| !stood_before)?;
    Some(FieldError::new("spec.template.spec.hostUsers", obstacle))
}

/// A decision on a failure names the failure, and is only looked at when it is new.
fn check_recovery(object: &Object, old: &Object) -> Option<FieldError> {
    let said = |object: &Object| object.metadata.annotations.clone().unwrap_or_default().recovery;
    let value = said(object).filter(|_| said(object) != said(old))?;
    let value = value.as_str();
    RecoveryAnswer::parse(value).is_none().then(|| {
        FieldError::new(
            format!("metadata.annotations[{ANNOTATION_RECOVERY}]"),
            format!(
                "Unsupported value: {value:?}: must be accept-ID or reset-ID, with the ID that the message of the \
                 condition FilesystemReady or ConsumerReady names, or reset-UID with the UID in status.instanceUid"
            ),
        )
    })
}

/// New annotations of the object that ask for something and do nothing.
fn annotations_in_vain(object: &Object, old: &Object) -> Vec<String> {
    let said = |object: &Object| object.metadata.annotations.clone().unwrap_or_default();
    let (now, before) = (said(object), said(old));
    let mut warnings = Vec::new();
    if now.restarted_at.is_some() && now.restarted_at != before.restarted_at {
        warnings.push(format!(
            "metadata.annotations[{ANNOTATION_RESTARTED_AT}]: does nothing here: a restart is asked for in \
             spec.template.metadata.annotations"
        ));
    }
    let answer = now
        .recovery
        .as_deref()
        .filter(|_| now.recovery != before.recovery);
    let answer = answer.and_then(RecoveryAnswer::parse);
    let present = object
        .status
        .instance_uid
        .as_deref()
        .map(RecoveryAnswer::abandoning);
    // The identifier of a failure is shorter, and the agent knows it.
    let names_instance = |answer: &RecoveryAnswer| answer.id.len() == UID_DIGITS;
    if let (Some(answer), Some(present)) = (answer.filter(names_instance), present)
        && answer != present
    {
        warnings.push(format!(
            "metadata.annotations[{ANNOTATION_RECOVERY}]: does nothing: the present value of status.instanceUid is {}",
            object.status.instance_uid.as_deref().unwrap_or_default()
        ));
    }
    warnings
}

/// Everything that is wrong with a spec, as far as it can be found without the API server.
fn problems(spec: &Spec, draft: &PartialTemplate, settings: &Settings) -> Vec<FieldError> {
    let mut problems = Vec::new();
    problems.extend(check_prefix(&spec.host_path_prefix, &settings.allowed_prefixes));
    problems.extend(provider_problems(&spec.provider));
    problems.extend(draft.problems.iter().cloned());
    if draft.template.is_null() {
        return problems;
    }
    let pod = &draft.template["spec"];
    if pod.is_null() {
        problems.push(FieldError::new(
            "spec.template.spec",
            "Required value: the pod to run",
        ));
        return problems;
    }
    if elements(pod, "containers").is_empty() {
        let message = "Required value: the first container is the one whose filesystem is kept";
        problems.push(FieldError::new("spec.template.spec.containers", message));
    }
    if pod["os"]["name"] == json!("windows") {
        problems.push(FieldError::new(
            "spec.template.spec.os.name",
            "must be linux: StoppableContainer runs on Linux only",
        ));
    }
    if !elements(pod, "ephemeralContainers").is_empty() {
        let message = "must be empty: ephemeral containers are added to running pods (kubectl debug)";
        problems.push(FieldError::new("spec.template.spec.ephemeralContainers", message));
    }
    check_reserved(pod, &mut problems);
    problems
}

/// The elements of a list of an object; none if it has no such list.
fn elements<'a>(object: &'a Value, list: &str) -> &'a [Value] {
    object[list].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn check_reserved(pod: &Value, problems: &mut Vec<FieldError>) {
    for (at, volume) in elements(pod, "volumes").iter().enumerate() {
        if volume["name"] == json!(VOLUME_NAME) {
            problems.push(FieldError::new(
                format!("spec.template.spec.volumes[{at}].name"),
                format!("{VOLUME_NAME:?} is reserved for the volume of the kept filesystem"),
            ));
        }
    }
    for list in ["initContainers", "containers"] {
        for (at, container) in elements(pod, list).iter().enumerate() {
            check_mounts(&format!("spec.template.spec.{list}[{at}]"), container, problems);
        }
    }
}

fn check_mounts(path: &str, container: &Value, problems: &mut Vec<FieldError>) {
    let reserved = || {
        format!(
            "{VOLUME_MOUNT_PATH} and everything below it is reserved for the volume of the kept filesystem"
        )
    };
    for (at, mount) in elements(container, "volumeMounts").iter().enumerate() {
        if mount["name"] == json!(VOLUME_NAME) {
            let message = format!("{VOLUME_NAME:?} is reserved for the volume of the kept filesystem");
            problems.push(FieldError::new(
                format!("{path}.volumeMounts[{at}].name"),
                message,
            ));
        }
        if mount["mountPath"].as_str().is_some_and(is_reserved_path) {
            problems.push(FieldError::new(
                format!("{path}.volumeMounts[{at}].mountPath"),
                reserved(),
            ));
        }
    }
    for (at, device) in elements(container, "volumeDevices").iter().enumerate() {
        if device["devicePath"].as_str().is_some_and(is_reserved_path) {
            problems.push(FieldError::new(
                format!("{path}.volumeDevices[{at}].devicePath"),
                reserved(),
            ));
        }
    }
}

/// The prefix must be one of the administrator's, as written: a directory below an allowed one
/// could lie in another object's data.
fn check_prefix(prefix: &str, allowed: &[String]) -> Option<FieldError> {
    let field = "spec.hostPathPrefix";
    if !is_clean_path(prefix) {
        let message = "must be an absolute path without \".\", \"..\", empty parts and trailing slash";
        return Some(FieldError::new(
            field,
            format!("Invalid value: {prefix:?}: {message}"),
        ));
    }
    (!allowed.iter().any(|a| a == prefix)).then(|| {
        let list = allowed.join(", ");
        FieldError::new(
            field,
            format!("Unsupported value: {prefix:?}: the administrator allows {list}"),
        )
    })
}

/// Whether a path is absolute and has one spelling only.
pub fn is_clean_path(path: &str) -> bool {
    let mut parts = path.split('/');
    let is_absolute = parts.next() == Some("") && path.len() > 1;
    is_absolute && !parts.any(|part| matches!(part, "" | "." | "..")) && !path.contains(char::is_control)
}

/// What will not be as written, or not now.
fn warnings(spec: &Spec, template: &Value, old: Option<&Spec>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |field: &str, message: &str| warnings.push(format!("{field}: {message}"));
    let pod = &template["spec"];
    if pod["nodeName"].as_str().is_some_and(|name| !name.is_empty()) {
        warn(
            "spec.template.spec.nodeName",
            "is overridden: the pod runs on the provider's node",
        );
    }
    if pod["restartPolicy"]
        .as_str()
        .is_some_and(|policy| !policy.is_empty() && policy != "Always")
    {
        warn("spec.template.spec.restartPolicy", "is overridden with Always");
    }
    let metadata = &template["metadata"];
    for label in [LABEL_MANAGED_BY, LABEL_INSTANCE, LABEL_ROLE] {
        if metadata["labels"].get(label).is_some() {
            warn(
                &format!("spec.template.metadata.labels[{label}]"),
                "is overridden: the label is the controller's",
            );
        }
    }
    if metadata["annotations"].get(ANNOTATION_MAIN_CONTAINER).is_some() {
        let field = format!("spec.template.metadata.annotations[{ANNOTATION_MAIN_CONTAINER}]");
        warn(&field, "is ignored: the first container is the main one");
    }
    let waits = |old: &Spec| {
        let restarts = spec.template.restarted_at().is_some()
            && old.template.restarted_at() != spec.template.restarted_at();
        old.running && spec.running && old.template != spec.template && !restarts
    };
    if old.is_some_and(waits) {
        warn(
            "spec.template",
            &format!(
                "the change takes effect at the next start: set running to false and to true again, or the \
                 annotation {ANNOTATION_RESTARTED_AT} of the template to another value"
            ),
        );
    }
    warnings
}
