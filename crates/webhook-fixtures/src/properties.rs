//! What must hold for every consumer pod on its way through the webhook.

use serde_json::{Value, json};

use crate::{Harness, instance, pod};

/// Admits the consumer of a template with this pod spec, and checks what must hold for any.
pub async fn check_rewrite(harness: &mut Harness, spec: &Value) -> Value {
    let mut instance = instance();
    instance["spec"]["template"]["spec"] = spec.clone();
    // What the node agent resolved the template's user to.
    let asked = [&spec["containers"][0], spec].map(|place| place["securityContext"]["runAsUser"].as_i64());
    let uid = asked.into_iter().flatten().next();
    let user = uid.map(|uid| uid.to_string()).unwrap_or_default();
    instance["status"]["filesystem"]["identity"] = json!({ "user": user, "uid": uid.unwrap_or(0), "gid": 0 });
    harness.instance(&instance);
    let mut created = pod();
    // As the controller creates it: its own gate behind the template's.
    let gates = [&spec["schedulingGates"], &created["spec"]["schedulingGates"]];
    let gates: Vec<_> = gates
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .cloned()
        .collect();
    created["spec"] = spec.clone();
    created["spec"]["schedulingGates"] = json!(gates);

    let rewritten = harness.mutated(&created).await;
    assert_eq!(harness.mutated(&rewritten).await, rewritten, "I4");
    let answer = harness.final_state(&rewritten).await;
    assert!(answer.is_allowed(), "I3: {answer:?}");
    // H20: nothing but the main container runs on the wrapper, and it does.
    for list in ["containers", "initContainers"] {
        let list_of = |pod: &Value| pod["spec"][list].as_array().cloned().unwrap_or_default();
        let (before, after) = (list_of(&created), list_of(&rewritten));
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            if before["name"] == "main" {
                assert_ne!(before["image"], after["image"]);
            } else {
                assert_eq!(before, after);
            }
        }
    }
    // A pod that was not mutated is refused.
    assert!(!harness.final_state(&created).await.is_allowed(), "I3");
    rewritten
}
