//! Other webhooks, before ours and between two calls of ours (invariant I4).

use super::*;

/// Changes the pod as another webhook would after our first call, and calls our webhook again.
fn again(case: &mut Case, change: impl FnOnce(&mut Value)) -> PodSpec {
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    change(&mut case.pod);
    case.pod_spec()
}

#[test]
fn i4_a_proxy_in_front_does_not_become_the_main_container() {
    let mut case = Case::new(&json!({})).pod(|pod| {
        let containers = pod["spec"]["containers"].as_array_mut().unwrap();
        containers.insert(0, json!({ "name": "istio-proxy", "image": "proxy" }));
    });
    let spec = again(&mut case, |_| ());
    assert_eq!(spec.containers[0].image.as_deref(), Some("proxy"));
    assert_eq!(spec.containers[1].image.as_deref(), Some("example/wrapper:1"));
}

#[test]
fn i4_what_injectors_add_to_the_main_container_stays() {
    let mut case = Case::new(&json!({}));
    let spec = again(&mut case, |pod| {
        let main = &mut pod["spec"]["containers"][0];
        main["volumeMounts"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({ "name": "v", "mountPath": "/vault/secrets" }));
        main["env"] = json!([{ "name": "X", "value": "y" }]);
        pod["spec"]["volumes"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({ "name": "v", "emptyDir": {} }));
    });
    let paths: Vec<_> = spec.containers[0]
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| m.mount_path.as_str())
        .collect();
    assert_eq!(paths, ["/vault/secrets", "/.stoppablecontainer"]);
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "X");
}

#[rstest::rstest]
#[case::image(|pod: &mut Value| pod["spec"]["containers"][0]["image"] = json!("mirror/user/image:1"))]
#[case::command(|pod: &mut Value| { pod["spec"]["containers"][0].as_object_mut().unwrap().remove("command"); })]
#[case::volume(|pod: &mut Value| { pod["spec"].as_object_mut().unwrap().remove("volumes"); })]
#[case::mount(|pod: &mut Value| { pod["spec"]["containers"][0].as_object_mut().unwrap().remove("volumeMounts"); })]
#[case::label(|pod: &mut Value| pod["metadata"]["labels"] = json!({ "app": "x" }))]
#[case::annotation(|pod: &mut Value| { pod["metadata"].as_object_mut().unwrap().remove("annotations"); })]
#[case::restart_policy(|pod: &mut Value| pod["spec"]["restartPolicy"] = json!("Never"))]
#[case::node(|pod: &mut Value| pod["spec"]["nodeName"] = json!("node-2"))]
#[case::environment(|pod: &mut Value| { pod["spec"]["containers"][0].as_object_mut().unwrap().remove("env"); })]
#[case::user(|pod: &mut Value| { pod["spec"]["containers"][0].as_object_mut().unwrap().remove("securityContext"); })]
fn i4_what_was_undone_is_repaired(#[case] undo: fn(&mut Value)) {
    let mut case = Case::new(&json!({ "args": ["x"] }))
        .image(&json!({ "entrypoint": ["/entry"], "env": ["A=1"], "stopSignal": "SIGQUIT" }));
    let wanted = case.run().unwrap().pod.spec.unwrap();
    assert_eq!(again(&mut case, undo), wanted);
}

#[test]
fn i4_a_program_put_in_front_of_ours_runs_behind_our_wrapper() {
    let mut case = Case::new(&json!({ "command": ["/bin/app", "x"] }));
    let spec = again(&mut case, |pod| {
        let main = &mut pod["spec"]["containers"][0];
        let command = main["command"].as_array().unwrap().clone();
        let old = command
            .into_iter()
            .chain(main["args"].as_array().unwrap().clone())
            .collect::<Vec<_>>();
        main["command"] = json!(["/vault/vault-env"]);
        main["args"] = Value::from(old);
    });
    assert_eq!(
        spec.containers[0].command.as_ref().unwrap()[..2],
        ["/exec-wrapper", "run"]
    );
    assert_eq!(
        spec.containers[0].args.as_ref().unwrap(),
        &["/vault/vault-env", "/bin/app", "x"]
    );
}

/// As a Kyverno policy does that adds a default user to every pod without one.
#[test]
fn i5_a_user_that_another_webhook_gives_the_pod_counts_before_and_after_ours() {
    let case = || {
        Case::new(&json!({}))
            .image(&json!({ "user": "web" }))
            .identity(&json!({ "user": "web", "uid": 33, "gid": 34 }))
    };
    let policy =
        |pod: &mut Value| pod["spec"]["securityContext"] = json!({ "runAsUser": 1000, "runAsGroup": 3000 });
    let before = case().pod(policy).pod_spec();
    let after = again(&mut case(), policy);
    for spec in [before, after] {
        let context = spec.containers[0].security_context.clone().unwrap_or_default();
        assert_eq!((context.run_as_user, context.run_as_group), (None, None));
    }
}

#[test]
fn i4_variables_that_others_add_later_win_as_in_a_plain_pod() {
    let mut case = Case::new(&json!({})).image(&json!({ "env": ["LANG=C"] }));
    let spec = again(&mut case, |pod| {
        let env = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        env.push(json!({ "name": "LANG", "value": "de" }));
        env.push(json!({ "name": "COPY", "value": "$(LANG)" }));
    });
    let env: Vec<_> = spec.containers[0]
        .env
        .iter()
        .flatten()
        .map(|e| (e.name.as_str(), e.value.as_deref()))
        .collect();
    assert_eq!(
        env,
        [
            ("LANG", Some("C")),
            ("LANG", Some("de")),
            ("COPY", Some("$(LANG)"))
        ]
    );
}
