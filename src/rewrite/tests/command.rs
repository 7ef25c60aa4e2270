//! argv, environment, hooks and probes.

use super::*;

#[rstest::rstest]
// Kubernetes' table: "Define a Command and Arguments for a Container".
#[case(json!({}), json!(["/entry"]), json!(["a", "b"]), &["/entry", "a", "b"])]
#[case(json!({}), json!([]), json!(["a"]), &["a"])]
#[case(json!({}), json!(["/entry"]), json!([]), &["/entry"])]
#[case(json!({ "command": ["/c"] }), json!(["/entry"]), json!(["a"]), &["/c"])]
#[case(json!({ "args": ["x"] }), json!(["/entry"]), json!(["a"]), &["/entry", "x"])]
#[case(json!({ "args": ["x"] }), json!([]), json!(["a"]), &["x"])]
#[case(json!({ "command": ["/c"], "args": ["x"] }), json!(["/entry"]), json!(["a"]), &["/c", "x"])]
#[case(json!({ "command": [], "args": [] }), json!(["/entry"]), json!(["a"]), &["/entry", "a"])]
#[case(json!({ "args": ["x"] }), json!([""]), json!([]), &["x"])]
// The image's words are literal, the template's may refer.
#[case(json!({}), json!(["/entry", "$(A)"]), json!(["$$", "$x"]), &["/entry", "$$(A)", "$$$", "$x"])]
#[case(json!({ "args": ["$(A)", "$$(A)"] }), json!(["/entry"]), json!([]), &["/entry", "$(A)", "$$(A)"])]
fn i5_argv(#[case] main: Value, #[case] entrypoint: Value, #[case] cmd: Value, #[case] argv: &[&str]) {
    let main = Case::new(&main)
        .image(&json!({ "entrypoint": entrypoint, "cmd": cmd }))
        .main();
    assert_eq!(main.args.unwrap(), argv);
    assert_eq!(
        main.command.unwrap(),
        ["/exec-wrapper", "run", "--default-home", "--"]
    );
}

/// Why a command cannot be executed goes where the template says. The kubelet expands references in
/// commands, not in this path.
#[rstest::rstest]
#[case(json!({}), &[])]
#[case(json!({ "terminationMessagePath": "" }), &[])]
#[case(json!({ "terminationMessagePath": "/dev/termination-log" }), &[])]
#[case(json!({ "terminationMessagePath": "/var/last words" }), &["--termination-log", "/var/last words"])]
#[case(json!({ "terminationMessagePath": "/$(A)/$$" }), &["--termination-log", "/$$(A)/$$$"])]
#[case(json!({ "terminationMessagePath": "--" }), &["--termination-log", "--"])]
fn i4_i5_the_wrapper_knows_where_the_termination_message_goes(#[case] main: Value, #[case] options: &[&str]) {
    let mut case = Case::new(&main);
    let command = [&["/exec-wrapper", "run", "--default-home"][..], options, &["--"]].concat();
    let before = case.main();
    assert_eq!(before.command.as_ref().unwrap(), &command);
    // Another webhook puts its program in front.
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    let container = &mut case.pod["spec"]["containers"][0];
    let own = before.args.clone().unwrap();
    let pushed: Vec<_> = command
        .iter()
        .copied()
        .chain(own.iter().map(String::as_str))
        .collect();
    container["args"] = json!(pushed);
    container["command"] = json!(["/inject"]);
    let after = case.main();
    assert_eq!(after.command.unwrap(), command);
    assert_eq!(after.args.unwrap(), [vec!["/inject".to_owned()], own].concat());
}

#[test]
fn an_image_and_a_template_without_a_command_are_refused() {
    let denial = Case::new(&json!({})).image(&json!({ "cmd": [] })).denial();
    assert_eq!(denial, Denial::NothingToRun("spec.containers[0]".to_owned()));
}

#[rstest::rstest]
#[case(json!([{ "name": "HOME", "value": "/h" }]), json!([]))]
#[case(json!([]), json!(["HOME=/h"]))]
fn i5_home_that_is_set_stays(#[case] env: Value, #[case] image: Value) {
    let main = Case::new(&json!({ "env": env }))
        .image(&json!({ "env": image }))
        .main();
    assert_eq!(main.command.unwrap(), ["/exec-wrapper", "run", "--"]);
}

#[rstest::rstest]
#[case::behind(json!([]), json!(["A=1", "B=2"]), json!([["A", "1"], ["B", "2"]]))]
#[case::template_wins(json!([["B", "x"]]), json!(["A=1", "B=2"]), json!([["B", "x"], ["A", "1"]]))]
#[case::last_of_equal_names(json!([]), json!(["A=1", "B=2", "A=3"]), json!([["A", "3"], ["B", "2"]]))]
#[case::values_are_literal(json!([]), json!(["A=$(B)$$=", "B=é\nz"]), json!([["A", "$$(B)$$$="], ["B", "é\nz"]]))]
#[case::not_variables(json!([]), json!(["A", "=x", ""]), json!([]))]
#[case::new_references_stay_literal(json!([["X", "$(A) $(C)"]]), json!(["A=1"]), json!([["X", "$(A) $(C)"], ["A", "1"]]))]
#[case::a_later_definition_does_not_count(
    json!([["X", "$(A)"], ["A", "2"], ["Y", "$(A)"]]), json!(["A=1"]), json!([["X", "$(A)"], ["A", "2"], ["Y", "$(A)"]])
)]
fn i5_environment(#[case] template: Value, #[case] image: Value, #[case] expected: Value) {
    let entries = |pairs: &Value| -> Vec<Value> {
        let pairs = pairs.as_array().unwrap().iter();
        pairs
            .map(|pair| json!({ "name": pair[0], "value": pair[1] }))
            .collect()
    };
    let main = Case::new(&json!({ "env": entries(&template) }))
        .image(&json!({ "env": image }))
        .main();
    assert_eq!(
        serde_json::to_value(main.env.unwrap_or_default()).unwrap(),
        Value::from(entries(&expected))
    );
}

#[test]
fn i5_env_from_wins_over_the_image_and_the_template_over_both() {
    let template = json!({
        "env": [{ "name": "OWN", "value": "o" }],
        "envFrom": [{ "configMapRef": { "name": "cm" } }, { "prefix": "LA", "secretRef": { "name": "s", "optional": true } }],
    });
    let mut case = Case::new(&template).image(&json!({ "env": ["OWN=i", "LANG=C", "P Q=x"] }));
    let configured = json!({ "name": "LANG", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "LANG", "optional": true } } });
    let secret = json!({ "name": "LANG", "valueFrom": { "secretKeyRef": { "name": "s", "key": "NG", "optional": true } } });
    let (default, odd) = (
        json!({ "name": "LANG", "value": "C" }),
        json!({ "name": "P Q", "value": "x" }),
    );
    let own = json!({ "name": "OWN", "value": "o" });
    let env = serde_json::to_value(case.main().env).unwrap();
    assert_eq!(env, json!([own, default, configured, secret, odd]));

    // A source that another webhook adds after us is seen at the reinvocation.
    case.pod = serde_json::to_value(case.run().unwrap().pod).unwrap();
    case.pod["spec"]["containers"][0]["envFrom"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "configMapRef": { "name": "late" } }));
    let late = json!({ "name": "LANG", "valueFrom": { "configMapKeyRef": { "name": "late", "key": "LANG", "optional": true } } });
    let env = serde_json::to_value(case.main().env).unwrap();
    assert_eq!(env, json!([own, default, configured, secret, late, odd]));
}

#[test]
fn h8_a_name_that_kubernetes_cannot_carry_is_left_out_and_said() {
    let rewritten = Case::new(&json!({}))
        .image(&json!({ "env": ["Ä=1", "A B=2"] }))
        .run()
        .unwrap();
    assert!(rewritten.warnings[0].contains("Ä"), "{:?}", rewritten.warnings);
    let env = rewritten.pod.spec.unwrap().containers[0].env.clone().unwrap();
    assert_eq!(env.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["A B"]);
}

#[test]
fn h8_a_value_that_no_process_can_have_is_refused() {
    let denial = Case::new(&json!({}))
        .image(&json!({ "env": ["A=x\0y"] }))
        .denial();
    assert!(
        matches!(denial, Denial::ImageEnvironment { ref name, .. } if name == "A"),
        "{denial}"
    );
}

#[test]
fn i5_references_in_command_and_args_resolve_as_in_a_plain_pod() {
    let template = json!({
        "command": ["$(OWN)", "$(IMAGE)"], "args": ["$(BOTH)"],
        "env": [{ "name": "OWN", "value": "o" }, { "name": "BOTH", "value": "b" }],
    });
    let main = Case::new(&template)
        .image(&json!({ "env": ["IMAGE=i", "BOTH=x"] }))
        .main();
    assert_eq!(main.args.unwrap(), ["$(OWN)", "$$(IMAGE)", "$(BOTH)"]);
}

#[test]
fn i5_exec_hooks_and_probes_run_in_the_kept_filesystem() {
    let exec = json!({ "exec": { "command": ["/bin/check", "$(IMAGE)"] } });
    let main = json!({
        "startupProbe": exec, "livenessProbe": exec, "readinessProbe": { "httpGet": { "path": "/", "port": "http" } },
        "lifecycle": { "postStart": exec, "preStop": { "sleep": { "seconds": 1 } } },
    });
    let main = serde_json::to_value(Case::new(&main).image(&json!({ "env": ["IMAGE=i"] })).main()).unwrap();
    // The kubelet expands the commands of probes, but not those of hooks.
    let hook = ["/.stoppablecontainer/exec-wrapper", "hook", "--", "/bin/check"];
    let wrapped = |last: &str| json!(hook.iter().copied().chain([last]).collect::<Vec<_>>());
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(main[probe]["exec"]["command"], wrapped("$$(IMAGE)"));
    }
    assert_eq!(
        main["lifecycle"]["postStart"]["exec"]["command"],
        wrapped("$(IMAGE)")
    );
    assert_eq!(
        main["readinessProbe"],
        json!({ "httpGet": { "path": "/", "port": "http" } })
    );
    assert_eq!(main["lifecycle"]["preStop"], json!({ "sleep": { "seconds": 1 } }));
}

#[test]
fn a_working_directory_of_the_template_wins() {
    let case = |main: Value| {
        Case::new(&main)
            .image(&json!({ "workingDir": "/image" }))
            .main()
            .working_dir
    };
    assert_eq!(
        case(json!({ "workingDir": "/template" })).as_deref(),
        Some("/template")
    );
    assert_eq!(case(json!({})).as_deref(), Some("/image"));
    assert_eq!(Case::new(&json!({})).main().working_dir, None);
}

#[test]
fn i4_a_template_that_looks_rewritten_is_not_taken_for_one() {
    let command = json!({ "command": ["/exec-wrapper", "run", "--"], "args": ["x"] });
    let main = Case::new(&command).main();
    assert_eq!(main.args.unwrap(), ["/exec-wrapper", "run", "--", "x"]);
}
