/*!
Tolerations of our pods: their data is on one node, so they are not deleted when it is unreachable,
and their providers may go there when it is under pressure.

Kubernetes deletes the pods of a node that is unreachable for five minutes (taint-based eviction) so
that others can take their place on another node. Ours cannot run on another node: they would be
stopped in vain when the node is back. A template with tolerations of its own for these taints keeps
them.
*/

use k8s_openapi::api::core::v1::Toleration;

/// Taints of a node that is unreachable or not ready (Kubernetes documentation, "Taint based
/// Evictions").
const UNREACHABLE: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Taints of a node under pressure (Kubernetes documentation, "Taint Nodes by Condition").
const PRESSURE: [&str; 3] = [
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
];
const NO_EXECUTE: &str = "NoExecute";
const NO_SCHEDULE: &str = "NoSchedule";

/// `given`, and what keeps a pod on an unreachable node where `given` does not cover that.
pub(crate) fn tolerate_unreachable(given: Vec<Toleration>) -> Vec<Toleration> {
    let added = missing_tolerations(&given);
    [given, added].concat()
}

/// Tolerations that keep a pod on an unreachable node where `given` does not cover that.
pub(crate) fn missing_tolerations(given: &[Toleration]) -> Vec<Toleration> {
    uncovered(given, &UNREACHABLE, NO_EXECUTE)
}

/// `given`, and tolerations that let a pod come to a node under pressure: for a pod that cannot run
/// on another node, and uses next to nothing. A pod that does not have a node yet must not end up
/// there.
pub(crate) fn tolerate_pressure(given: Vec<Toleration>) -> Vec<Toleration> {
    let added = uncovered(&given, &PRESSURE, NO_SCHEDULE);
    [given, added].concat()
}

/// Tolerations of the taints `keys` that `given` does not cover.
fn uncovered(given: &[Toleration], keys: &[&str], effect: &str) -> Vec<Toleration> {
    let open = |key: &&&str| {
        !given
            .iter()
            .any(|toleration| covers_taint(toleration, key, effect))
    };
    keys.iter()
        .filter(open)
        .map(|key| toleration_of(key, effect))
        .collect()
}

fn covers_taint(toleration: &Toleration, key: &str, of: &str) -> bool {
    let named = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (named.is_empty() || named == key) && (effect.is_empty() || effect == of)
}

fn toleration_of(key: &str, effect: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(given: serde_json::Value) -> Vec<String> {
        let given: Vec<Toleration> = serde_json::from_value(given).unwrap();
        let count = given.len();
        let all = tolerate_unreachable(given.clone());
        assert_eq!(all[..count], given, "what was given stays");
        let added = &all[count..];
        assert!(added.iter().all(|added| added.toleration_seconds.is_none()));
        added
            .iter()
            .map(|added| added.key.clone().unwrap_or_default())
            .collect()
    }

    #[test]
    fn f28_pods_stay_on_a_silent_node_unless_their_template_says_how_long() {
        assert_eq!(keys(json!([])), UNREACHABLE);
        assert_eq!(keys(json!([{ "key": "gpu", "operator": "Exists" }])), UNREACHABLE);
        let unreachable = json!([{
            "key": UNREACHABLE[1], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60,
        }]);
        assert_eq!(keys(unreachable), [UNREACHABLE[0]]);
        assert_eq!(
            keys(json!([{ "key": UNREACHABLE[0], "operator": "Exists", "effect": "NoSchedule" }])),
            UNREACHABLE
        );
        assert!(keys(json!([{ "operator": "Exists" }])).is_empty());
    }
}
