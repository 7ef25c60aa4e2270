/*!
StoppableContainers and StoppableContainerInstances: what the schema and CEL
cannot say, all mistakes in one answer, each with the path of its field.

What already stands in an object is not held against a change of something
else, so that an object can always be stopped, labelled and deleted, whatever
rules have come since it was made.
*/

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use stoppablecontainer_api::names::{
    ANNOTATION_MAIN_CONTAINER, ANNOTATION_RECOVERY, GROUP, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_ROLE,
    VOLUME_MOUNT_PATH, VOLUME_NAME,
};
use stoppablecontainer_api::{PodTemplate, Provider, RecoveryAnswer, TemplateError};

use super::dry_run::{self, Opinion};
use super::{Request, Settings, Verdict};
use crate::rewrite::is_reserved_path;
use crate::webhook::review::Operation;

/// A mistake in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

/// What both kinds have in common.
#[derive(Clone, Debug, Deserialize)]
struct Object {
    spec: Spec,
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
pub(super) async fn validate(settings: &Settings, client: Option<&Client>, request: &Request) -> Verdict {
    let ours = request.kind.group == GROUP && request.sub_resource.as_deref().unwrap_or_default().is_empty();
    if !ours || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Verdict::allow();
    }
    let is_deleted = !request.object["metadata"]["deletionTimestamp"].is_null();
    if is_deleted {
        return Verdict::allow();
    }
    if let Some(problem) = check_recovery(request) {
        return refused(request, &[problem]);
    }
    if request.object["spec"] == request.old_object["spec"] {
        return Verdict::allow();
    }
    let object = match read(&request.object) {
        Ok(object) => object,
        Err(error) => return Verdict::invalid(format!("spec: cannot be read: {error}")),
    };
    // An old object that cannot be read excuses nothing.
    let old = read(&request.old_object).ok();
    let known = old
        .as_ref()
        .map(|old| problems(&old.spec, settings))
        .unwrap_or_default();
    let place = old
        .is_none()
        .then(|| check_namespace(&request.namespace, settings));
    let template = object.spec.template.decode();
    let problems: Vec<_> = place
        .flatten()
        .into_iter()
        .chain(problems(&object.spec, settings))
        .filter(|p| !known.contains(p))
        .collect();
    if !problems.is_empty() {
        return refused(request, &problems);
    }
    // Without a problem, or with one that was there before.
    let Ok(template) = template else {
        return Verdict::allow();
    };
    let mut warnings = warnings(&object.spec, &template, old.as_ref().map(|o| &o.spec));
    // The controller carries over what its author was already told.
    let is_author = request.user_info.username != settings.controller;
    let is_new = old.is_none_or(|old| old.spec.template != object.spec.template);
    if let Some(client) = client.filter(|_| is_author && is_new) {
        match dry_run::ask(client, &request.namespace, &request.name, &template).await {
            Opinion::Good => {}
            Opinion::Doubtful(warning) => warnings.push(warning),
            Opinion::Invalid(problems) => return refused(request, &problems),
        }
    }
    Verdict::allow().with_warnings(warnings)
}

fn refused(request: &Request, problems: &[Problem]) -> Verdict {
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Verdict::invalid(format!(
        "{} {:?} is invalid: {}",
        request.kind.name,
        request.name,
        list.join("; ")
    ))
}

fn read(object: &Value) -> Result<Object, serde_json::Error> {
    Object::deserialize(object)
}

/// Consumer pods of an excluded namespace never reach the webhook, so an object there could only fail later.
fn check_namespace(namespace: &str, settings: &Settings) -> Option<Problem> {
    let is_excluded = settings.excluded_namespaces.iter().any(|n| n == namespace);
    is_excluded.then(|| {
        Problem::new(
            "metadata.namespace",
            format!(
                "Invalid value: {namespace:?}: the administrator keeps StoppableContainer out of this namespace; use another one"
            ),
        )
    })
}

/// A decision on a failure names the failure, and is only looked at when it is new.
fn check_recovery(request: &Request) -> Option<Problem> {
    let said = |object: &Value| object["metadata"]["annotations"][ANNOTATION_RECOVERY].clone();
    let new = said(&request.object);
    let value = new.as_str().filter(|_| new != said(&request.old_object))?;
    RecoveryAnswer::parse(value).is_none().then(|| {
        Problem::new(
            format!("metadata.annotations[{ANNOTATION_RECOVERY}]"),
            format!(
                "Unsupported value: {value:?}: must be accept-ID or reset-ID, with the ID that the message of the \
                 condition FilesystemReady or ConsumerReady names"
            ),
        )
    })
}

/// Everything that is wrong with a spec.
fn problems(spec: &Spec, settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(check_prefix(&spec.host_path_prefix, &settings.allowed_prefixes));
    problems.extend(spec.provider.excesses().iter().map(Problem::from));
    let excesses = spec.template.excesses();
    if !excesses.is_empty() {
        problems.extend(excesses.iter().map(Problem::from));
        return problems;
    }
    let template = match spec.template.decode() {
        Ok(template) => template,
        Err(error) => {
            problems.push(Problem::from(&error));
            return problems;
        }
    };
    let Some(pod) = &template.spec else {
        problems.push(Problem::new(
            "spec.template.spec",
            "Required value: the pod to run",
        ));
        return problems;
    };
    if pod.containers.is_empty() {
        let message = "Required value: the first container is the one whose filesystem is kept";
        problems.push(Problem::new("spec.template.spec.containers", message));
    }
    if pod.host_users == Some(false) {
        let message = "must not be false: user namespaces are not supported by StoppableContainer yet";
        problems.push(Problem::new("spec.template.spec.hostUsers", message));
    }
    if pod.os.as_ref().is_some_and(|os| os.name == "windows") {
        problems.push(Problem::new(
            "spec.template.spec.os.name",
            "must be linux: StoppableContainer runs on Linux only",
        ));
    }
    if pod.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let message = "must be empty: ephemeral containers are added to running pods (kubectl debug)";
        problems.push(Problem::new("spec.template.spec.ephemeralContainers", message));
    }
    check_reserved(pod, &mut problems);
    problems
}

fn check_reserved(pod: &PodSpec, problems: &mut Vec<Problem>) {
    for (at, _) in pod
        .volumes
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, v)| v.name == VOLUME_NAME)
    {
        let field = format!("spec.template.spec.volumes[{at}].name");
        problems.push(Problem::new(
            field,
            format!("{VOLUME_NAME:?} is reserved for the volume of the kept filesystem"),
        ));
    }
    let init = pod
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(at, c)| ("initContainers", at, c));
    let containers = pod
        .containers
        .iter()
        .enumerate()
        .map(|(at, c)| ("containers", at, c));
    for (list, at, container) in init.chain(containers) {
        check_mounts(&format!("spec.template.spec.{list}[{at}]"), container, problems);
    }
}

fn check_mounts(path: &str, container: &Container, problems: &mut Vec<Problem>) {
    let reserved = || {
        format!(
            "{VOLUME_MOUNT_PATH} and everything below it is reserved for the volume of the kept filesystem"
        )
    };
    for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if mount.name == VOLUME_NAME {
            let message = format!("{VOLUME_NAME:?} is reserved for the volume of the kept filesystem");
            problems.push(Problem::new(format!("{path}.volumeMounts[{at}].name"), message));
        }
        if is_reserved_path(&mount.mount_path) {
            problems.push(Problem::new(
                format!("{path}.volumeMounts[{at}].mountPath"),
                reserved(),
            ));
        }
    }
    for (at, device) in container.volume_devices.iter().flatten().enumerate() {
        if is_reserved_path(&device.device_path) {
            problems.push(Problem::new(
                format!("{path}.volumeDevices[{at}].devicePath"),
                reserved(),
            ));
        }
    }
}

/// The prefix must be one of the administrator's, as written: a directory below an allowed one could lie in another
/// object's data.
fn check_prefix(prefix: &str, allowed: &[String]) -> Option<Problem> {
    let field = "spec.hostPathPrefix";
    if !is_clean_path(prefix) {
        let message = "must be an absolute path without \".\", \"..\", empty parts and trailing slash";
        return Some(Problem::new(
            field,
            format!("Invalid value: {prefix:?}: {message}"),
        ));
    }
    (!allowed.iter().any(|a| a == prefix)).then(|| {
        let list = allowed.join(", ");
        Problem::new(
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
fn warnings(spec: &Spec, template: &PodTemplateSpec, old: Option<&Spec>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |field: &str, message: &str| warnings.push(format!("{field}: {message}"));
    if let Some(pod) = &template.spec {
        if pod.node_name.as_ref().is_some_and(|n| !n.is_empty()) {
            warn(
                "spec.template.spec.nodeName",
                "is overridden: the pod runs on the provider's node",
            );
        }
        if pod
            .restart_policy
            .as_ref()
            .is_some_and(|p| !p.is_empty() && p != "Always")
        {
            warn("spec.template.spec.restartPolicy", "is overridden with Always");
        }
    }
    let metadata = template.metadata.as_ref();
    for label in [LABEL_MANAGED_BY, LABEL_INSTANCE, LABEL_ROLE] {
        if metadata
            .and_then(|m| m.labels.as_ref())
            .is_some_and(|labels| labels.contains_key(label))
        {
            warn(
                &format!("spec.template.metadata.labels[{label}]"),
                "is overridden: the label is the controller's",
            );
        }
    }
    let annotations = metadata.and_then(|m| m.annotations.as_ref());
    if annotations.is_some_and(|a| a.contains_key(ANNOTATION_MAIN_CONTAINER)) {
        let field = format!("spec.template.metadata.annotations[{ANNOTATION_MAIN_CONTAINER}]");
        warn(&field, "is ignored: the first container is the main one");
    }
    if old.is_some_and(|old| old.running && spec.running && old.template != spec.template) {
        warn(
            "spec.template",
            "the change takes effect at the next start: set running to false and to true again",
        );
    }
    warnings
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl From<&TemplateError> for Problem {
    fn from(error: &TemplateError) -> Self {
        Self::new(error.field(), error.message())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
