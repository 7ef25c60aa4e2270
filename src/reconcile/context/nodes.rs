/*!
The facts that are read from a Node: whether Kubernetes still hears of it, and whether
its kubelet says that it is ready.

A node that is not heard of may run everything that it ran: unknown is not gone.
*/

use k8s_openapi::api::core::v1::{Node, NodeStatus};

/// Of what the watch holds of a node, its readiness alone is looked at.
pub(crate) fn keep_ready_condition(node: &mut Node) {
    let conditions = node.status.take().and_then(|status| status.conditions);
    let ready = conditions.map(|all| all.into_iter().filter(|c| c.type_ == "Ready").collect());
    node.status = Some(NodeStatus {
        conditions: ready,
        ..NodeStatus::default()
    });
}

/// The words of a `Ready` condition that is `Unknown`.
pub(crate) fn unreachable_message(node: &Node) -> Option<String> {
    ready_is(node, "Unknown")
}

/// The words of a `Ready` condition that is `False`: the kubelet's own, of what is wrong with the node.
pub(crate) fn not_ready_message(node: &Node) -> Option<String> {
    ready_is(node, "False")
}

fn ready_is(node: &Node, status: &str) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let mut ready = conditions.iter().filter(|c| c.type_ == "Ready");
    let ready = ready.find(|c| c.status == status)?;
    Some(ready.message.clone().unwrap_or_default())
}
