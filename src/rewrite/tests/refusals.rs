//! What cannot be admitted, and how that reads.

use super::*;

fn spec_with(fields: &Value) -> Value {
    let mut spec =
        json!({ "containers": [{ "name": "main", "image": "i" }, { "name": "side", "image": "s" }] });
    merge(&mut spec, fields);
    spec
}

#[rstest::rstest]
#[case(json!({ "os": { "name": "windows" } }), "spec.os.name: ")]
#[case(json!({ "volumes": [{ "name": "a", "emptyDir": {} }, { "name": "stoppablecontainer", "emptyDir": {} }] }), "spec.volumes[1].name: ")]
#[case(
    json!({ "initContainers": [{ "name": "x", "volumeMounts": [{ "name": "stoppablecontainer", "mountPath": "/x" }] }] }),
    "spec.initContainers[0].volumeMounts[0].name: "
)]
#[case(
    json!({ "containers": [
        { "name": "main", "image": "i" },
        { "name": "side", "volumeMounts": [{ "name": "stoppablecontainer", "mountPath": "/x" }] },
    ] }),
    "spec.containers[1].volumeMounts[0].name: "
)]
fn h20_unsupported_pods_are_refused_with_the_path(#[case] fields: Value, #[case] start: &str) {
    let denial = Case::of_spec(&spec_with(&fields)).denial();
    assert!(
        denial.to_string().starts_with(start) && !denial.is_transient(),
        "{denial}"
    );
}

/// A pod with users of its own is rewritten as any other, but for a node whose runtime cannot run
/// it.
#[test]
fn h20_own_users_are_refused_where_the_node_cannot_run_them() {
    let spec = spec_with(&json!({ "hostUsers": false }));
    let with_runtime = |user_namespaces: Option<bool>| {
        let mut case = Case::of_spec(&spec);
        case.node["status"] = json!({
            "nodeInfo": { "containerRuntimeVersion": "containerd://1.6.20" },
            "runtimeHandlers": user_namespaces.map(|known| json!([
                { "name": "", "features": { "userNamespaces": known } },
            ])),
        });
        case
    };
    for known in [None, Some(false)] {
        let denial = with_runtime(known).denial();
        assert!(
            denial
                .to_string()
                .starts_with("spec.hostUsers: node node-1 cannot run pods")
                && !denial.is_transient(),
            "{denial}"
        );
    }
    for case in [Case::of_spec(&spec), with_runtime(Some(true))] {
        let pod = case.run().unwrap().pod;
        assert_eq!(pod.spec.unwrap().host_users, Some(false));
    }
}

#[rstest::rstest]
#[case("/.stoppablecontainer")]
#[case("/.stoppablecontainer/")]
#[case("//.stoppablecontainer/agent.sock")]
#[case("/x/../.stoppablecontainer/./y")]
#[case(".stoppablecontainer")]
fn h9_the_reserved_path_is_recognised_however_it_is_spelt(#[case] path: &str) {
    let mounts =
        json!({ "volumeMounts": [{ "name": "a", "mountPath": "/a" }, { "name": "b", "mountPath": path }] });
    let denial = Case::new(&mounts).denial().to_string();
    assert!(
        denial.starts_with("spec.containers[0].volumeMounts[1].mountPath: "),
        "{denial}"
    );
    let devices = json!({ "volumeDevices": [{ "name": "b", "devicePath": path }] });
    let denial = Case::new(&devices).denial().to_string();
    assert!(
        denial.starts_with("spec.containers[0].volumeDevices[0].devicePath: "),
        "{denial}"
    );
}

#[rstest::rstest]
#[case("/.stoppablecontainers")]
#[case("/data/.stoppablecontainer")]
#[case("/")]
fn h9_other_paths_are_free(#[case] path: &str) {
    Case::new(&json!({ "volumeMounts": [{ "name": "a", "mountPath": path }] }))
        .run()
        .unwrap();
}

#[test]
fn h16_attributes_on_our_volume_are_taken_away() {
    let mut case = Case::new(&json!({}));
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    let ours = case.pod["spec"]["volumes"][0].clone();
    case.pod["spec"]["volumes"][0]["csi"]["volumeAttributes"] =
        json!({ "csi.storage.k8s.io/pod.uid": "other" });
    case.pod["spec"]["volumes"][0]["csi"]["readOnly"] = json!(false);
    assert_eq!(
        serde_json::to_value(&case.pod_spec().volumes.unwrap()[0]).unwrap(),
        ours
    );
}

#[rstest::rstest]
#[case::no_status(|i: &mut Value| i["status"] = json!({}))]
#[case::preparing(|i: &mut Value| i["status"]["filesystem"]["state"] = json!("Preparing"))]
#[case::failed(|i: &mut Value| i["status"]["filesystem"]["state"] = json!("Failed"))]
#[case::of_another_provider(|i: &mut Value| i["status"]["providerPodUid"] = json!("p-2"))]
#[case::no_image(|i: &mut Value| i["status"]["filesystem"]["image"] = Value::Null)]
#[case::no_identity(|i: &mut Value| i["status"]["filesystem"]["identity"] = Value::Null)]
fn i1_without_a_ready_filesystem_there_is_no_pod(#[case] change: fn(&mut Value)) {
    let mut case = Case::new(&json!({}));
    change(&mut case.instance);
    let denial = case.denial();
    assert!(
        denial.is_transient() && denial.to_string().contains("StoppableContainerInstance dev"),
        "{denial}"
    );
}

#[test]
fn a_template_without_its_container_is_named() {
    let case = Case::new(&json!({})).pod(|pod| pod["spec"]["containers"][0]["name"] = json!("renamed"));
    assert_eq!(case.denial(), Denial::NoMainContainer("main".to_owned()));
}
