//! Properties of the whole way of a pod through the webhook. `cargo xtask fuzz pod_rewrite` has the same with as many
//! cases as wanted, guided by coverage.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::generated::pod_spec;
use crate::support::{Harness, instance, pod};

/// Admits the consumer of a template with this pod spec, and checks what must hold for any.
pub(crate) async fn check(harness: &mut Harness, spec: &Value) -> Value {
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
    // An unmutated pod never passes.
    assert!(!harness.final_state(&created).await.is_allowed(), "I3");
    rewritten
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i3_i4_i19_h20_h21_any_pod_is_rewritten_once_and_passes(spec in pod_spec()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let mut harness = Harness::new();
        runtime.block_on(check(&mut harness, &spec));
        // What the API server's types do not know stays where it is.
        let mut unknown = spec.clone();
        sprinkle(&mut unknown);
        let rewritten = runtime.block_on(check(&mut harness, &unknown));
        lost(&unknown, &rewritten["spec"], "spec");
    }
}

/// Puts a field that no type knows into every object.
#[cfg(test)]
fn sprinkle(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(sprinkle);
            object.insert("zzUnknown".to_owned(), json!("x"));
        }
        Value::Array(list) => list.iter_mut().for_each(sprinkle),
        _ => {}
    }
}

/// I19: what was put in is still at its place: the rewrite puts its own behind what there is.
#[cfg(test)]
fn lost(before: &Value, after: &Value, path: &str) {
    match before {
        Value::Object(object) => {
            assert_eq!(after["zzUnknown"], json!("x"), "{path}");
            for (name, value) in object {
                lost(value, &after[name], &format!("{path}.{name}"));
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                lost(value, &after[at], &format!("{path}[{at}]"));
            }
        }
        _ => {}
    }
}
