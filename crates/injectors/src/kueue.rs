//! Kueue's pod integration at creation, after kubernetes-sigs/kueue:
//! `pkg/controller/jobs/pod/pod_webhook.go` (`Default`), `pkg/util/pod/pod.go`
//! (`GenerateRoleHash`). What it does at admission is a controller's work, not a webhook's.

use std::hash::{DefaultHasher, Hash, Hasher};

use json_patch::Patch;
use serde_json::{Value, json};

use crate::pod::{edit_list, edited, has, label, list};

const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const MANAGED: &str = "kueue.x-k8s.io/managed";
/// The second belongs to topology-aware scheduling, which is on by default.
const GATES: [&str; 2] = ["kueue.x-k8s.io/admission", "kueue.x-k8s.io/topology"];

pub(crate) fn patch(pod: &Value, default_queue: bool) -> Patch {
    edited(pod, |pod| {
        if label(pod, QUEUE).is_empty() {
            if !default_queue {
                return;
            }
            pod["metadata"]["labels"][QUEUE] = json!("default");
        }
        pod["metadata"]["labels"][MANAGED] = json!("true");
        edit_list(&mut pod["metadata"], "finalizers", |finalizers| {
            if !finalizers.contains(&json!(MANAGED)) {
                finalizers.push(json!(MANAGED));
            }
        });
        edit_list(&mut pod["spec"], "schedulingGates", |gates| {
            for gate in GATES {
                if !has(gates, gate) {
                    gates.push(json!({ "name": gate }));
                }
            }
        });
        let annotation = "kueue.x-k8s.io/role-hash";
        if pod["metadata"]["annotations"][annotation].is_null() {
            pod["metadata"]["annotations"][annotation] = json!(role_hash(&pod["spec"]));
        }
    })
}

/// Eight hexadecimal digits of what makes a pod take other resources or nodes. Another digest than
/// the original's.
fn role_hash(spec: &Value) -> String {
    let shape = |key| -> Vec<Value> {
        let containers = list(spec, key).iter();
        containers
            .map(|c| json!({ "resources": c["resources"]["requests"], "ports": c["ports"] }))
            .collect()
    };
    let whole = json!([
        shape("initContainers"),
        shape("containers"),
        spec["nodeSelector"],
        spec["affinity"],
        spec["tolerations"],
        spec["runtimeClassName"],
        spec["priority"],
        spec["topologySpreadConstraints"],
        spec["overhead"],
    ]);
    let mut hasher = DefaultHasher::new();
    whole.to_string().hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}
