/*!
What the controller reads from a Node: whether its kubelet still reports, whether it reports that
the node is ready, whether the node is cordoned, and what its container runtime can do.

An unreachable node may still run everything that it ran.
*/

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

/// Keeps the `Ready` condition of all conditions.
pub(crate) fn keep_ready_condition(node: &mut Node) {
    let status = node.status.take().unwrap_or_default();
    let ready = |all: Vec<NodeCondition>| all.into_iter().filter(|c| c.type_ == "Ready").collect();
    node.status = Some(NodeStatus {
        conditions: status.conditions.map(ready),
        ..status
    });
}

/// Whether `kubectl cordon` or `kubectl drain` closed the node to new pods.
pub(crate) fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.unschedulable) == Some(true)
}

/// The message of a `Ready` condition that is `Unknown`.
pub(crate) fn unreachable_message(node: &Node) -> Option<String> {
    ready_is(node, "Unknown")
}

/// The message of a `Ready` condition that is `False`, from the kubelet.
pub(crate) fn not_ready_message(node: &Node) -> Option<String> {
    ready_is(node, "False")
}

fn ready_is(node: &Node, status: &str) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let mut ready = conditions.iter().filter(|c| c.type_ == "Ready");
    let ready = ready.find(|c| c.status == status)?;
    Some(ready.message.clone().unwrap_or_default())
}
