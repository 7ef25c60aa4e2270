//! Properties of the whole way of a pod through the webhook. `cargo xtask fuzz pod_rewrite` has the
//! same with as many cases as wanted, guided by coverage.

use proptest::prelude::*;
use serde_json::{Value, json};

use webhook_fixtures::{Harness, check_rewrite, pod_spec};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i3_i4_i19_h20_h21_any_pod_is_rewritten_once_and_passes(spec in pod_spec()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let mut harness = Harness::new();
        runtime.block_on(check_rewrite(&mut harness, &spec));
        // What the API server's types do not know stays where it is.
        let mut unknown = spec.clone();
        sprinkle(&mut unknown);
        let rewritten = runtime.block_on(check_rewrite(&mut harness, &unknown));
        lost(&unknown, &rewritten["spec"], "spec");
    }
}

/// Puts a field that no type knows into every object.
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
