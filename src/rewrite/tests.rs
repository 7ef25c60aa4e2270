//! Tables of the rewrite, by field; the properties are in `properties`, other webhooks in
//! `injectors`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use serde_json::{Value, json};
use stoppablecontainer_api::{Placement, StoppableContainerInstance};

use super::{Denial, Facts, Rewritten, Wrapper, rewrite};

mod command;
mod gate;
mod identity;
mod injectors;
mod placement;
mod properties;
mod refusals;

/// A consumer pod on its way, and all that is known of it. The pod starts as a copy of the
/// template.
#[derive(Debug)]
struct Case {
    wrapper: Wrapper,
    instance: Value,
    pod: Value,
    node: Value,
    claims: BTreeSet<String>,
}

impl Case {
    /// A case with one container `main` that has these fields.
    fn new(main: &Value) -> Self {
        let mut container = json!({ "name": "main", "image": "user/image:1" });
        merge(&mut container, main);
        Self::of_spec(&json!({ "containers": [container] }))
    }

    /// A case with this pod spec.
    fn of_spec(spec: &Value) -> Self {
        let instance = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
            "kind": "StoppableContainerInstance",
            "metadata": { "name": "dev", "namespace": "team", "uid": "i-1" },
            "spec": { "stoppableContainerName": "dev", "running": true, "template": { "spec": spec } },
            "status": {
                "nodeName": "node-1",
                "providerPodUid": "p-1",
                "filesystem": {
                    "state": "Ready",
                    "nodeName": "node-1",
                    "providerPodUid": "p-1",
                    "image": { "reference": "user/image:1", "id": "sha256:0", "cmd": ["/bin/app"] },
                    "identity": { "user": "", "uid": 0, "gid": 0 },
                },
            },
        });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "dev", "namespace": "team", "labels": { "app": "x" } },
            "spec": spec,
        });
        Self {
            wrapper: Wrapper {
                image: "example/wrapper:1".to_owned(),
                pull_secret: None,
            },
            instance,
            pod,
            node: json!({ "metadata": { "name": "node-1" }, "spec": {} }),
            claims: BTreeSet::new(),
        }
    }

    fn image(mut self, facts: &Value) -> Self {
        merge(&mut self.instance["status"]["filesystem"]["image"], facts);
        self
    }

    fn identity(mut self, identity: &Value) -> Self {
        self.instance["status"]["filesystem"]["identity"] = identity.clone();
        self
    }

    fn pod(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.pod);
        self
    }

    fn node(mut self, spec: &Value) -> Self {
        self.node["spec"] = spec.clone();
        self
    }

    fn run_on(&self, pod: &Pod, placement: Option<Placement>) -> Result<Rewritten, Denial> {
        let instance: StoppableContainerInstance = serde_json::from_value(self.instance.clone()).unwrap();
        let node: Option<Node> = serde_json::from_value(self.node.clone()).unwrap();
        let facts = Facts {
            wrapper: &self.wrapper,
            instance: &instance,
            node: node.as_ref(),
            scheduler_claims: &self.claims,
            placement,
        };
        rewrite(pod, &facts)
    }

    /// The rewritten pod; proves the fixed point by the way.
    fn run(&self) -> Result<Rewritten, Denial> {
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        let once = self.run_on(&pod, None)?;
        let twice = self.run_on(&once.pod, None)?;
        assert_eq!(twice.pod, once.pod, "I4: rewriting again must change nothing");
        let mut stored = serde_json::to_value(&once.pod).unwrap();
        drop_empty(&mut stored);
        let stored: Pod = serde_json::from_value(stored).unwrap();
        assert_eq!(
            self.run_on(&stored, None)?.pod,
            stored,
            "I4: nor what the API server makes of it"
        );
        Ok(once)
    }

    fn pod_spec(&self) -> PodSpec {
        self.run().unwrap().pod.spec.unwrap()
    }

    /// The main container afterwards.
    fn main(&self) -> Container {
        self.pod_spec()
            .containers
            .into_iter()
            .find(|c| c.name == "main")
            .unwrap()
    }

    fn denial(&self) -> Denial {
        self.run().unwrap_err()
    }
}

/// What the API server does between two webhooks: it writes the pod from its own types, which leave
/// empty fields out.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            fields.retain(|_, v| !v.is_null() && *v != json!("") && *v != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// Sets the fields of `with` in `value`.
fn merge(value: &mut Value, with: &Value) {
    for (key, field) in with.as_object().unwrap() {
        value[key] = field.clone();
    }
}

#[test]
fn a_whole_pod() {
    let case = Case::of_spec(&json!({
        "restartPolicy": "OnFailure",
        "nodeName": "elsewhere",
        "initContainers": [{ "name": "init", "image": "user/init" }],
        "containers": [
            { "name": "main", "image": "user/image:1", "env": [{ "name": "A", "value": "$(PATH)" }] },
            { "name": "side", "image": "user/side" },
        ],
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "imagePullSecrets": [{ "name": "theirs" }],
    }));
    let mut case = case
        .image(&json!({
            "entrypoint": ["/entry.sh"], "cmd": ["serve", "$(PORT)"], "env": ["PATH=/bin", "PORT=80"],
            "workingDir": "/srv", "user": "web", "stopSignal": "SIGQUIT",
        }))
        .identity(&json!({ "user": "web", "uid": 33, "gid": 34, "supplementalGroups": [35] }));
    case.wrapper.pull_secret = Some("ours".to_owned());
    let pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "dev",
            "namespace": "team",
            "annotations": {
                "stoppablecontainer.xtlsoft.top/image-id": "sha256:0",
                "stoppablecontainer.xtlsoft.top/main-container": "main",
            },
            "labels": {
                "app": "x",
                "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
                "stoppablecontainer.xtlsoft.top/instance": "dev",
                "stoppablecontainer.xtlsoft.top/role": "consumer",
            },
        },
        "spec": {
            "restartPolicy": "Always",
            "nodeName": "node-1",
            "securityContext": { "supplementalGroups": [35] },
            "initContainers": [{ "name": "init", "image": "user/init" }],
            "containers": [
                {
                    "name": "main",
                    "image": "example/wrapper:1-sigquit",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/exec-wrapper", "run", "--default-home", "--"],
                    "args": ["/entry.sh", "serve", "$$(PORT)"],
                    "workingDir": "/srv",
                    "env": [
                        { "name": "A", "value": "$(PATH)" },
                        { "name": "PATH", "value": "/bin" },
                        { "name": "PORT", "value": "80" },
                    ],
                    "securityContext": { "runAsUser": 33, "runAsGroup": 34 },
                    "volumeMounts": [
                        { "name": "stoppablecontainer", "mountPath": "/.stoppablecontainer", "readOnly": true },
                    ],
                },
                { "name": "side", "image": "user/side" },
            ],
            "volumes": [
                { "name": "data", "emptyDir": {} },
                { "name": "stoppablecontainer", "csi": { "driver": "csi.stoppablecontainer.xtlsoft.top", "readOnly": true } },
            ],
            "imagePullSecrets": [{ "name": "theirs" }, { "name": "ours" }],
        },
    });
    assert_eq!(pod, expected);
}

#[test]
fn h19_system_labels_and_the_annotation_of_a_template_are_overridden() {
    let forged = json!({
        "labels": {
            "stoppablecontainer.xtlsoft.top/role": "provider",
            "stoppablecontainer.xtlsoft.top/instance": "other",
        },
        "annotations": { "stoppablecontainer.xtlsoft.top/main-container": "side" },
    });
    let spec = json!({ "containers": [{ "name": "main", "image": "i" }, { "name": "side", "image": "s" }] });
    let mut case = Case::of_spec(&spec).pod(|pod| merge(&mut pod["metadata"], &forged));
    case.instance["spec"]["template"]["metadata"] = forged;
    let metadata = case.run().unwrap().pod.metadata;
    let labels = metadata.labels.unwrap();
    assert_eq!(labels["stoppablecontainer.xtlsoft.top/role"], "consumer");
    assert_eq!(labels["stoppablecontainer.xtlsoft.top/instance"], "dev");
    assert_eq!(
        metadata.annotations.unwrap()["stoppablecontainer.xtlsoft.top/main-container"],
        "main"
    );
    assert_eq!(case.pod_spec().containers[1].image.as_deref(), Some("s"));
}

/// The agent compares it with the image of the filesystem.
#[test]
fn i1_the_pod_says_for_which_image_it_was_completed() {
    let annotation = |case: &Case| {
        let annotations = case.run().unwrap().pod.metadata.annotations.unwrap();
        annotations["stoppablecontainer.xtlsoft.top/image-id"].clone()
    };
    let mut case = Case::new(&json!({})).image(&json!({ "id": "sha256:1" }));
    assert_eq!(annotation(&case), "sha256:1");
    let filesystem = &mut case.instance["status"]["filesystem"];
    filesystem["state"] = json!("Preparing");
    filesystem["announced"] = json!(true);
    assert_eq!(annotation(&case), "sha256:1", "the filesystem is announced");
    case.pod["metadata"]["annotations"] = json!({ "stoppablecontainer.xtlsoft.top/image-id": "sha256:0" });
    assert_eq!(annotation(&case), "sha256:1", "whatever a template says");
}

#[test]
fn a_stop_signal_without_a_variant_is_said() {
    let rewritten = Case::new(&json!({}))
        .image(&json!({ "stopSignal": "SIGSEGV" }))
        .run()
        .unwrap();
    assert_eq!(
        rewritten.pod.spec.unwrap().containers[0].image.as_deref(),
        Some("example/wrapper:1")
    );
    assert!(
        rewritten.warnings[0].contains("SIGSEGV"),
        "{:?}",
        rewritten.warnings
    );
}
