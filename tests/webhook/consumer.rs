//! `/mutate` and `/validate-pod`.

use std::time::Duration;

use serde_json::{Value, json};

use webhook_fixtures::{Harness, creation, instance, pod};

#[tokio::test]
async fn a_consumer_is_rewritten_and_passes_the_final_validation() {
    let harness = Harness::new();
    let rewritten = harness.mutated(&pod()).await;
    let main = &rewritten["spec"]["containers"][0];
    assert_eq!(main["image"], "example/wrapper:1-sigquit");
    assert_eq!(
        main["args"],
        json!(["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"])
    );
    assert_eq!(rewritten["spec"]["nodeName"], "node-1");
    assert_eq!(harness.mutated(&rewritten).await, rewritten, "I4");
    assert!(harness.final_state(&rewritten).await.is_allowed());
}

/// The gate keeps what no webhook of ours saw from running, so a pod that has it was not rewritten.
#[tokio::test]
async fn i3_the_rewrite_takes_the_gate_off_and_a_gated_pod_does_not_pass() {
    let harness = Harness::new();
    let rewritten = harness.mutated(&pod()).await;
    assert_eq!(rewritten["spec"].get("schedulingGates"), None);
    let mut gated = rewritten.clone();
    gated["spec"]["schedulingGates"] = pod()["spec"]["schedulingGates"].clone();
    let answer = harness.final_state(&gated).await;
    assert!(answer.message().contains("/spec/schedulingGates"), "{answer:?}");
    assert_eq!(
        harness.mutated(&gated).await,
        rewritten,
        "a reinvocation repairs it"
    );

    // Kueue came first and goes last: the pod queues, with Kueue's gate alone.
    let mut queued = pod();
    let kueue = json!({ "name": "kueue.x-k8s.io/admission" });
    queued["spec"]["schedulingGates"]
        .as_array_mut()
        .unwrap()
        .insert(0, kueue.clone());
    let rewritten = harness.mutated(&queued).await;
    assert_eq!(rewritten["spec"]["schedulingGates"], json!([kueue]));
    assert_eq!(rewritten["spec"].get("nodeName"), None);
    assert!(harness.final_state(&rewritten).await.is_allowed());
}

/// The controller decided on an old copy of the instance; the user has stopped it since.
#[tokio::test(start_paused = true)]
async fn i14_i17_no_consumer_of_a_stopped_instance_is_admitted() {
    let mut harness = Harness::new();
    let rewritten = harness.mutated(&pod()).await;
    let mut stopped = instance();
    stopped["spec"]["running"] = json!(false);
    harness.instance(&stopped);
    for (path, pod) in [("/mutate", pod()), ("/validate-pod", rewritten)] {
        let answer = harness.review(path, &creation("Pod", "", &pod)).await;
        assert!(answer.message().contains("spec.running is false"), "{answer:?}");
        assert_eq!(
            answer.0["status"]["code"], 409,
            "it may be this copy that is behind"
        );
    }
}

/// A dry run starts nothing: it shows what a start would be.
#[tokio::test]
async fn i13_a_dry_run_for_a_stopped_instance_is_answered_as_for_a_start() {
    let mut harness = Harness::new();
    let mut stopped = instance();
    stopped["spec"]["running"] = json!(false);
    harness.instance(&stopped);
    let mut request = creation("Pod", "", &pod());
    request["dryRun"] = json!(true);
    let answer = harness.review("/mutate", &request).await;
    assert_eq!(answer.applied(&pod())["spec"]["nodeName"], "node-1");
}

#[tokio::test]
async fn f12_a_start_that_is_still_on_its_way_is_waited_for() {
    let mut harness = Harness::new();
    let mut stopped = instance();
    stopped["spec"]["running"] = json!(false);
    harness.instance(&stopped);
    let (pod, request) = (pod(), creation("Pod", "", &pod()));
    let reviewer = harness.reviewer();
    let review = tokio::spawn(async move { reviewer.review("/mutate", &request).await });
    tokio::task::yield_now().await;
    harness.instance(&instance());
    assert_eq!(review.await.unwrap().applied(&pod)["spec"]["nodeName"], "node-1");
}

#[tokio::test]
async fn i11_no_consumer_of_an_instance_on_its_way_out_is_admitted() {
    let mut harness = Harness::new();
    let mut going = instance();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    harness.instance(&going);
    let answer = harness.review("/mutate", &creation("Pod", "", &pod())).await;
    assert!(answer.message().contains("is being deleted"), "{answer:?}");
    assert_eq!(answer.0["status"]["code"], 422);
}

#[tokio::test]
async fn fields_of_a_newer_kubernetes_stay() {
    let mut newer = pod();
    newer["spec"]["fromTheFuture"] = json!({ "a": 1 });
    newer["spec"]["containers"][0]["env"] =
        json!([{ "name": "X", "valueFrom": { "futureRef": { "key": "k" } } }]);
    let rewritten = Harness::new().mutated(&newer).await;
    assert_eq!(rewritten["spec"]["fromTheFuture"], json!({ "a": 1 }));
    let env = rewritten["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(env[0]["valueFrom"], json!({ "futureRef": { "key": "k" } }));
}

#[tokio::test]
async fn i3_an_unmutated_pod_is_refused() {
    let answer = Harness::new().final_state(&pod()).await;
    assert!(
        answer.message().contains("/spec/containers/0/image"),
        "{answer:?}"
    );
    assert_eq!(answer.0["status"]["code"], 403);
}

#[rstest::rstest]
#[case("/spec/containers/0/image", json!("mirror/wrapper:1"))]
#[case("/spec/containers/0/volumeMounts/0/readOnly", json!(false))]
#[case("/spec/volumes/0/csi/readOnly", json!(false))]
#[case("/spec/nodeName", json!("node-2"))]
#[case("/spec/restartPolicy", json!("Never"))]
#[case("/metadata/labels/stoppablecontainer.xtlsoft.top~1role", json!("provider"))]
#[case("/metadata/labels/stoppablecontainer.xtlsoft.top~1instance", json!("other"))]
#[tokio::test]
async fn i3_h19_what_another_webhook_undid_is_refused_with_its_path(
    #[case] path: &str,
    #[case] value: Value,
) {
    let harness = Harness::new();
    let mut changed = harness.mutated(&pod()).await;
    *changed.pointer_mut(path).unwrap() = value;
    let answer = harness.final_state(&changed).await;
    let named = path.trim_end_matches("/0");
    assert!(answer.message().contains(named), "{path}: {answer:?}");
    assert_eq!(
        harness.mutated(&changed).await,
        harness.mutated(&pod()).await,
        "a reinvocation repairs it"
    );
}

#[tokio::test]
async fn i3_a_program_put_in_front_is_refused_and_repaired_by_reinvocation() {
    let harness = Harness::new();
    let mut changed = harness.mutated(&pod()).await;
    changed["spec"]["containers"][0]["command"] = json!(["/bin/tini", "--"]);
    assert!(
        harness
            .final_state(&changed)
            .await
            .message()
            .contains("/spec/containers/0/command")
    );
    let repaired = harness.mutated(&changed).await;
    assert_eq!(repaired["spec"]["containers"][0]["args"][0], "/bin/tini");
    assert!(harness.final_state(&repaired).await.is_allowed());
}

#[tokio::test]
async fn h23_a_cordon_between_mutation_and_validation_does_not_refuse_the_pod() {
    let mut harness = Harness::new();
    let rewritten = harness.mutated(&pod()).await;
    harness.node(&json!({ "unschedulable": true }));
    assert!(harness.final_state(&rewritten).await.is_allowed());
    assert_eq!(harness.mutated(&pod()).await["spec"].get("nodeName"), None);
}

#[rstest::rstest]
#[case("bound", "Bound", "ReadWriteOnce", true)]
#[case("waiting", "Pending", "ReadWriteOnce", false)]
#[case("exclusive", "Bound", "ReadWriteOncePod", false)]
#[tokio::test]
async fn h23_claims_that_need_the_scheduler(
    #[case] name: &str,
    #[case] phase: &str,
    #[case] mode: &str,
    #[case] by_name: bool,
) {
    let mut harness = Harness::new();
    harness.claim(name, phase, mode);
    let mut claiming = pod();
    let volume = |claim: &str| json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
    claiming["spec"]["volumes"] = volume(name);
    assert_eq!(
        harness.mutated(&claiming).await["spec"].get("nodeName").is_some(),
        by_name
    );
    claiming["spec"]["volumes"] = volume("unknown");
    assert_eq!(harness.mutated(&claiming).await["spec"].get("nodeName"), None);
}

#[rstest::rstest]
#[case("/mutate")]
#[case("/validate-pod")]
#[tokio::test]
async fn h19_only_the_controller_creates_consumers(#[case] path: &str) {
    let harness = Harness::new();
    let mut request = creation("Pod", "", &harness.mutated(&pod()).await);
    request["userInfo"]["username"] = json!("mallory");
    let answer = harness.review(path, &request).await;
    assert!(answer.message().contains("mallory"), "{answer:?}");
    assert_eq!(answer.0["status"]["code"], 403);
}

#[rstest::rstest]
#[case::none(json!([]))]
#[case::not_controlling(json!([{ "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance", "name": "dev", "uid": "i-1" }]))]
#[case::other_kind(json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "dev", "uid": "i-1", "controller": true }]))]
#[tokio::test]
async fn i8_labels_do_not_authorise(#[case] owners: Value) {
    let mut forged = pod();
    forged["metadata"]["ownerReferences"] = owners;
    let answer = Harness::new()
        .review("/mutate", &creation("Pod", "", &forged))
        .await;
    assert!(
        answer.message().starts_with("metadata.ownerReferences: "),
        "{answer:?}"
    );
}

#[tokio::test]
async fn i8_references_do_not_cross_namespaces() {
    let mut request = creation("Pod", "", &pod());
    request["namespace"] = json!("other");
    tokio::time::pause();
    let answer = Harness::new().review("/mutate", &request).await;
    assert!(
        answer.message().contains("no StoppableContainerInstance dev"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_pod_of_another_name_is_not_the_consumer() {
    let mut renamed = pod();
    renamed["metadata"]["name"] = json!("dev-2");
    let answer = Harness::new()
        .review("/mutate", &creation("Pod", "", &renamed))
        .await;
    assert!(answer.message().starts_with("metadata.name: "), "{answer:?}");
}

#[tokio::test]
async fn f12_an_instance_that_is_still_on_its_way_is_waited_for() {
    let mut harness = Harness::new();
    let mut preparing = instance();
    preparing["status"]["filesystem"]["state"] = json!("Preparing");
    harness.instance(&preparing);

    let (pod, request) = (pod(), creation("Pod", "", &pod()));
    let reviewer = harness.reviewer();
    let review = tokio::spawn(async move { reviewer.review("/mutate", &request).await });
    tokio::task::yield_now().await;
    harness.instance(&instance());
    assert_eq!(review.await.unwrap().applied(&pod)["spec"]["nodeName"], "node-1");
}

#[tokio::test(start_paused = true)]
async fn f11_a_pod_whose_instance_does_not_get_ready_is_refused_within_a_second() {
    let mut harness = Harness::new();
    let mut preparing = instance();
    preparing["status"]["filesystem"]["state"] = json!("Preparing");
    harness.instance(&preparing);
    let start = tokio::time::Instant::now();
    let answer = harness.review("/mutate", &creation("Pod", "", &pod())).await;
    assert!(
        answer
            .message()
            .contains("StoppableContainerInstance dev: its filesystem is not Ready"),
        "{answer:?}"
    );
    assert_eq!(answer.0["status"]["code"], 409);
    assert!(start.elapsed() <= Duration::from_secs(1));
}

#[tokio::test]
async fn i13_updates_deletions_and_subresources_of_pods_are_not_ours() {
    let harness = Harness::empty();
    for (operation, subresource) in [
        ("UPDATE", ""),
        ("DELETE", ""),
        ("CREATE", "binding"),
        ("CONNECT", "exec"),
    ] {
        let mut request = creation("Pod", "", &pod());
        request["operation"] = json!(operation);
        request["subResource"] = json!(subresource);
        for path in ["/mutate", "/validate-pod"] {
            let answer = harness.review(path, &request).await;
            assert!(
                answer.is_allowed() && answer.0.get("patch").is_none(),
                "{operation} {subresource}"
            );
        }
    }
}

#[tokio::test]
async fn warnings_of_the_rewrite_reach_whoever_asks() {
    let mut harness = Harness::new();
    let mut odd = instance();
    odd["status"]["filesystem"]["image"]["stopSignal"] = json!("SIGSEGV");
    harness.instance(&odd);
    let answer = harness.review("/mutate", &creation("Pod", "", &pod())).await;
    assert!(
        answer.is_allowed() && answer.warnings()[0].contains("SIGSEGV"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_is_refused() {
    let mut odd = pod();
    odd["spec"]["containers"] = json!("none");
    let answer = Harness::new().review("/mutate", &creation("Pod", "", &odd)).await;
    assert!(
        answer.message().starts_with("the object is not a valid Pod"),
        "{answer:?}"
    );
}
