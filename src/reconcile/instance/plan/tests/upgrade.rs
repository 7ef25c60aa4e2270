//! Objects and pods that an earlier version left: the upgrade restarts no consumer (F27).

use super::*;
use k8s_openapi::api::core::v1::Pod;
use stoppablecontainer_api::names::{ANNOTATION_IMAGE, ANNOTATION_MAIN_CONTAINER, ANNOTATION_TEMPLATE_HASH};

/// All annotations that pods had in the version of 2026-11-25.
const ANNOTATIONS: [&str; 3] = [
    ANNOTATION_IMAGE,
    ANNOTATION_MAIN_CONTAINER,
    ANNOTATION_TEMPLATE_HASH,
];

/// The pod as that version created it. It computed other hashes.
fn of_an_earlier_version(slot: &Slot) -> Slot {
    let Slot::Ours(pod) = slot else {
        panic!("{slot:?}");
    };
    changed(pod, |pod: &mut Pod| {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.retain(|name, _| ANNOTATIONS.contains(&name.as_str()));
        annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), "an earlier hash".to_owned());
        let spec = pod.spec.as_mut().unwrap();
        spec.scheduling_gates = None;
    })
}

/// Both pods run, and the status has only the fields of that version.
fn upgraded() -> Observed {
    let status = json!({
        "phase": "Running", "placement": "Node", "consumerPodUid": "consumer-uid", "observedGeneration": 3,
        "storageLimit": "10Gi",
    });
    let observed = with_both(json!({ "status": status }), up());
    Observed {
        provider: of_an_earlier_version(&observed.provider),
        consumer: of_an_earlier_version(&observed.consumer),
        ..observed
    }
}

#[test]
fn f27_an_upgrade_does_not_touch_what_runs() {
    let words = words(&upgraded());
    let touches = |word: &&String| !["keep node", "relabel"].iter().any(|w| word.starts_with(w));
    let touched: Vec<_> = words.iter().filter(touches).collect();
    assert!(touched.is_empty(), "{words:?}");
}

#[test]
fn f27_a_stop_after_an_upgrade_deletes_the_consumer_alone() {
    let mut stopped = upgraded();
    let instance = Arc::make_mut(&mut stopped.instance);
    instance.spec.running = false;
    let deletions: Vec<_> = words(&stopped)
        .into_iter()
        .filter(|word| word.starts_with("delete") || word.starts_with("discard"))
        .collect();
    assert_eq!(deletions.len(), 1, "{deletions:?}");
    assert!(deletions[0].starts_with("delete consumer"), "{deletions:?}");
}
