/*!
Pods with a user namespace of their own (`hostUsers: false`), and nodes that cannot run them.

The kubelet asks its container runtime which handlers support user namespaces and reports that in
`status.runtimeHandlers` of its Node (`pkg/kubelet/nodestatus`). It refuses such a pod for every
other handler, and for all of them if the runtime reports none (containerd 1), and then the pod
waits without a word in its status. So the operator refuses it before.
*/

use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use stoppablecontainer_api::PodTemplate;

/// The taint of a node that is not ready. A kubelet that begins does not know its runtime yet.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// A pod with `hostUsers: false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnUsers {
    /// Whether a RuntimeClass chooses the handler. Which one that is, is not known here.
    pub(crate) has_runtime_class: bool,
}

/// What counts of a pod's spec.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodPart {
    host_users: Option<bool>,
    runtime_class_name: Option<String>,
}

/// What counts of a template.
#[derive(Deserialize)]
struct TemplatePart {
    spec: Option<PodPart>,
}

// === impl OwnUsers ===

impl OwnUsers {
    /// Of a pod with these fields. `None` if it has the users of its node.
    pub(crate) fn of(host_users: Option<bool>, runtime_class_name: Option<&str>) -> Option<Self> {
        (host_users == Some(false)).then(|| Self {
            has_runtime_class: runtime_class_name.is_some_and(|name| !name.is_empty()),
        })
    }

    /// Of the pods of a template. `None` also if it cannot be read.
    pub(crate) fn of_template(template: &PodTemplate) -> Option<Self> {
        let spec = template.json().read::<TemplatePart>().ok()?.spec?;
        Self::of(spec.host_users, spec.runtime_class_name.as_deref())
    }

    /// Why a node cannot run the pod. `None` also if the node has not said.
    pub(crate) fn obstacle(self, node: &Node) -> Option<String> {
        if self.is_supported(node) != Some(false) {
            return None;
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        Some(format!(
            "node {name} cannot run pods with hostUsers: false, because its container runtime ({}) does not support \
             user namespaces (status.runtimeHandlers of the node); containerd 2 with runc 1.2 or newer does. Remove \
             hostUsers or use another node",
            runtime(node).unwrap_or_default()
        ))
    }

    /// Whether a node can run the pod. `None` if the node has not said.
    pub(crate) fn is_supported(self, node: &Node) -> Option<bool> {
        let status = node.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        let is_not_ready = conditions.any(|c| c.type_ == "Ready" && c.status != "True");
        let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        if is_not_ready || taints.any(|taint| taint.key == NOT_READY) {
            return None;
        }
        runtime(node)?;
        let mut handlers = status.runtime_handlers.iter().flatten();
        Some(handlers.any(|handler| {
            let is_asked = self.has_runtime_class || handler.name.as_deref().unwrap_or_default().is_empty();
            let features = handler.features.as_ref();
            is_asked && features.and_then(|features| features.user_namespaces) == Some(true)
        }))
    }
}

/// Name and version of the container runtime that a node reports.
fn runtime(node: &Node) -> Option<&str> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    Some(info.container_runtime_version.as_str()).filter(|runtime| !runtime.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(status: &Value, taints: &Value) -> Node {
        let node = json!({ "metadata": { "name": "n1" }, "spec": { "taints": taints }, "status": status });
        serde_json::from_value(node).unwrap()
    }

    fn status(handlers: &Value) -> Value {
        json!({
            "conditions": [{ "type": "Ready", "status": "True" }],
            "nodeInfo": { "containerRuntimeVersion": "containerd://1.6.20" },
            "runtimeHandlers": handlers,
        })
    }

    fn handler(name: &str, users: bool) -> Value {
        json!({ "name": name, "features": { "userNamespaces": users } })
    }

    #[test]
    fn h20_i12_a_node_cannot_run_what_its_runtime_does_not_support() {
        let (default, class) = (false, true);
        for (handlers, has_runtime_class, supported) in [
            (Value::Null, default, false),
            (json!([]), default, false),
            (json!([handler("", false)]), default, false),
            (json!([handler("", true)]), default, true),
            (json!([{ "name": "" }]), default, false),
            (json!([{ "features": { "userNamespaces": true } }]), default, true),
            (json!([handler("", false), handler("crun", true)]), default, false),
            // Which handler a RuntimeClass names is not known.
            (json!([handler("", false), handler("crun", true)]), class, true),
            (json!([handler("", false), handler("crun", false)]), class, false),
        ] {
            let pod = OwnUsers { has_runtime_class };
            let node = node(&status(&handlers), &json!([]));
            assert_eq!(pod.is_supported(&node), Some(supported), "{handlers}");
            let obstacle = pod.obstacle(&node);
            assert_eq!(obstacle.is_none(), supported);
            let words = obstacle.unwrap_or_default();
            assert!(supported || words.starts_with("node n1 cannot run pods with hostUsers: false"));
            assert!(supported || words.contains("containerd://1.6.20"), "{words}");
        }
    }

    #[test]
    fn h20_a_node_that_has_not_said_is_no_obstacle() {
        let pod = OwnUsers {
            has_runtime_class: false,
        };
        let beginning = json!({
            "conditions": [{ "type": "Ready", "status": "False" }],
            "nodeInfo": { "containerRuntimeVersion": "containerd://2.4.2" },
        });
        let taints = json!([{ "key": NOT_READY, "effect": "NoSchedule" }]);
        for unknown in [
            node(&Value::Null, &json!([])),
            node(&json!({}), &json!([])),
            node(&beginning, &json!([])),
            node(&status(&json!([])), &taints),
        ] {
            assert_eq!(pod.is_supported(&unknown), None, "{unknown:?}");
            assert_eq!(pod.obstacle(&unknown), None);
        }
    }

    #[test]
    fn h20_what_a_template_asks_for() {
        let of = |spec: Value| {
            let template = serde_json::from_value(json!({ "spec": spec })).unwrap();
            OwnUsers::of_template(&template).map(|users| users.has_runtime_class)
        };
        assert_eq!(of(json!({ "containers": [] })), None);
        assert_eq!(of(json!({ "hostUsers": true })), None);
        assert_eq!(of(json!({ "hostUsers": false })), Some(false));
        assert_eq!(
            of(json!({ "hostUsers": false, "runtimeClassName": "" })),
            Some(false)
        );
        assert_eq!(
            of(json!({ "hostUsers": false, "runtimeClassName": "crun" })),
            Some(true)
        );
        assert_eq!(of(json!({ "hostUsers": "no" })), None);
    }
}
