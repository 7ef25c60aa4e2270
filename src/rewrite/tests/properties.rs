//! Properties over generated templates: the fixed point, the patch, and that the container's
//! process gets what a plain container's would.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::expansion::tests::expand;
use super::*;
use crate::webhook::patch;
use stoppablecontainer_api::names::GATE;

const NAMES: [&str; 4] = ["A", "B", "PATH", "HOME"];

/// Text with references, escapes and pieces of them.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec!["$", "$$", "(", ")", "x", "é", "\n", ""]).prop_map(str::to_owned),
        prop::sample::select(&NAMES[..]).prop_map(|name| format!("$({name})")),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..3)
}

fn variables() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(
        (prop::sample::select(&NAMES[..]).prop_map(str::to_owned), text()),
        0..4,
    )
}

fn entries(variables: &[(String, String)]) -> Value {
    variables
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

prop_compose! {
    fn container()(command in texts(), args in texts(), env in variables(), probe in texts(), hook in texts(),
                   user in prop::option::of(1..9i64), extra in prop::option::of("[a-z]{1,3}")) -> Value {
        let mut main = json!({
            "command": command, "args": args, "env": entries(&env),
            "livenessProbe": { "exec": { "command": probe } },
            "lifecycle": { "preStop": { "exec": { "command": hook } } },
            "securityContext": { "runAsUser": user },
        });
        if let Some(name) = extra {
            main["volumeMounts"] = json!([{ "name": name, "mountPath": format!("/{name}") }]);
        }
        main
    }
}

prop_compose! {
    fn case()(main in container(), entrypoint in texts(), cmd in texts(), env in variables(),
              gate in any::<bool>(), ours in any::<bool>(), signal in prop::sample::select(vec!["", "SIGQUIT", "SIGSEGV"]),
              groups in prop::collection::vec(1..5i64, 0..3), front in any::<bool>(), secret in any::<bool>()) -> Case {
        let mut containers = vec![json!({ "name": "main", "image": "i" }), json!({ "name": "side", "image": "s" })];
        merge(&mut containers[0], &main);
        let mut spec = json!({ "containers": containers });
        if gate {
            spec["schedulingGates"] = json!([{ "name": "g" }]);
        }
        let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let uid = main["securityContext"]["runAsUser"].as_i64();
        let user = uid.map(|uid| uid.to_string()).unwrap_or_default();
        let mut case = Case::of_spec(&spec)
            .image(&json!({ "entrypoint": entrypoint, "cmd": cmd, "env": env, "stopSignal": signal }))
            .identity(&json!({ "user": user, "uid": uid.unwrap_or(0), "gid": 3, "supplementalGroups": groups }));
        if front {
            case.pod["spec"]["containers"].as_array_mut().unwrap().swap(0, 1);
        }
        if ours {
            let gates = &mut case.pod["spec"]["schedulingGates"];
            let others = gates.as_array().cloned().unwrap_or_default();
            *gates = [vec![json!({ "name": GATE })], others].concat().into();
        }
        if secret {
            case.wrapper.pull_secret = Some("ours".to_owned());
        }
        case
    }
}

/// What the kubelet makes of a container's `env` (`makeEnvironmentVariables`), on top of what the
/// image brings.
fn process_environment(
    container: &Container,
    image: &[String],
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut kubelet = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = expand(variable.value.as_deref().unwrap_or_default(), |name| {
            kubelet.get(name).cloned()
        });
        kubelet.insert(variable.name.clone(), value);
    }
    let image = image.iter().filter_map(|entry| entry.split_once('='));
    let mut all: BTreeMap<_, _> = image
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(kubelet.clone());
    (kubelet, all)
}

fn expanded(words: Option<&Vec<String>>, variables: &BTreeMap<String, String>) -> Vec<String> {
    words
        .into_iter()
        .flatten()
        .map(|word| expand(word, |name| variables.get(name).cloned()))
        .collect()
}

/// What the kubelet runs for a probe (`ExpandContainerCommandOnlyStatic`): values as written, not
/// expanded.
fn probe(container: &Container) -> Vec<String> {
    let raw: BTreeMap<_, _> = container
        .env
        .iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .into_iter()
        .map(|e| (e.name, e.value.unwrap_or_default()))
        .collect();
    let exec = container.liveness_probe.as_ref().and_then(|p| p.exec.as_ref());
    expanded(exec.and_then(|e| e.command.as_ref()), &raw)
}

fn images(case: &Case, key: &str) -> Vec<String> {
    serde_json::from_value(case.instance["status"]["filesystem"]["image"][key].clone()).unwrap()
}

/// 256 cases by default; `PROPTEST_CASES` sets more.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// `Case::run` asserts the fixed point.
    #[test]
    fn i4_h21_fixed_point_and_patch(case in case()) {
        let Ok(rewritten) = case.run() else { return Ok(()) };
        let typed: Pod = serde_json::from_value(case.pod.clone()).unwrap();
        let (old, new) = (serde_json::to_value(&typed).unwrap(), serde_json::to_value(&rewritten.pod).unwrap());
        let patch = patch::between(&old, &new);

        let mut applied = old.clone();
        json_patch::patch(&mut applied, &patch).unwrap();
        prop_assert_eq!(&applied, &new);

        // On what the API server really has, with fields that we do not know: all of them are still
        // there.
        let mut raw = case.pod.clone();
        for container in raw["spec"]["containers"].as_array_mut().unwrap() {
            container["unknown"] = container["name"].clone();
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                variable["unknown"] = variable["name"].clone();
            }
        }
        json_patch::patch(&mut raw, &patch).unwrap();
        for container in raw["spec"]["containers"].as_array().unwrap() {
            prop_assert_eq!(&container["unknown"], &container["name"]);
            let known = container["env"].as_array().into_iter().flatten().filter(|v| !v["unknown"].is_null());
            for variable in known {
                prop_assert_eq!(&variable["unknown"], &variable["name"]);
            }
        }
    }

    #[test]
    fn i5_the_process_is_that_of_a_plain_container(case in case()) {
        let Ok(_) = case.run() else { return Ok(()) };
        let typed: Pod = serde_json::from_value(case.pod.clone()).unwrap();
        let plain = typed.spec.unwrap().containers.into_iter().find(|c| c.name == "main").unwrap();
        let ours = case.main();

        let (kubelet, environment) = process_environment(&plain, &images(&case, "env"));
        let (our_kubelet, our_environment) = process_environment(&ours, &[]);
        prop_assert_eq!(environment, our_environment);

        let (command, args) = (expanded(plain.command.as_ref(), &kubelet), expanded(plain.args.as_ref(), &kubelet));
        let entrypoint = images(&case, "entrypoint");
        let entrypoint = if entrypoint == [""] { Vec::new() } else { entrypoint };
        let argv = match (command.is_empty(), args.is_empty()) {
            (false, _) => [command, args].concat(),
            (true, false) => [entrypoint, args].concat(),
            (true, true) => [entrypoint, images(&case, "cmd")].concat(),
        };
        prop_assert_eq!(argv, expanded(ours.args.as_ref(), &our_kubelet));

        let (theirs, wrapped) = (probe(&plain), probe(&ours));
        prop_assert_eq!(&theirs[..], wrapped.get(3..).unwrap_or_default());
        // The user's own variables are left alone.
        let env = |container: &Container| container.env.clone().unwrap_or_default();
        prop_assert_eq!(&env(&ours)[..env(&plain).len()], &env(&plain)[..]);
    }
}
