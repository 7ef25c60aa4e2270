//! Pod specs that the API server takes, of every field that the rewrite reads or has to leave
//! alone.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A pod spec whose first container is `main`.
pub fn pod_spec() -> impl Strategy<Value = Value> {
    let volumes = prop::sample::subsequence(VOLUMES.to_vec(), 0..=VOLUMES.len());
    let others = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let containers = (container("main"), container("side"), container("init"));
    let parts = (
        volumes,
        others,
        containers,
        pod_fields(),
        any::<bool>(),
        any::<bool>(),
    );
    parts.prop_map(
        |(volumes, others, (main, side, init), mut spec, has_init, is_sidecar)| {
            let mut containers = vec![main];
            for (at, index) in others.iter().enumerate() {
                let mut other = side.clone();
                other["name"] = json!(format!("side-{at}"));
                other["ports"] = json!([]);
                // Anywhere behind the main container, as a template has them.
                containers.insert(1 + index.index(containers.len()), other);
            }
            let mut inits = Vec::from_iter(has_init.then(|| init_container(init, is_sidecar)));
            for container in containers.iter_mut().chain(&mut inits) {
                let mounts = container["volumeMounts"].as_array_mut().expect("a list");
                mounts.retain(|mount| volumes.iter().any(|(name, _)| mount["name"] == *name));
            }
            let volumes: Vec<Value> = volumes
                .iter()
                .map(|(name, source)| volume(name, source))
                .collect();
            spec.insert("containers".to_owned(), Value::from(containers));
            spec.insert("initContainers".to_owned(), Value::from(inits));
            spec.insert("volumes".to_owned(), Value::from(volumes));
            Value::Object(spec)
        },
    )
}

/// What of a container an init container may have.
fn init_container(mut container: Value, is_sidecar: bool) -> Value {
    let fields = container.as_object_mut().expect("a container");
    fields.remove("ports");
    if is_sidecar {
        fields.insert("restartPolicy".to_owned(), json!("Always"));
    } else {
        for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            fields.remove(key);
        }
    }
    container
}

const VOLUMES: [(&str, &str); 6] = [
    ("scratch", r#"{"emptyDir":{}}"#),
    ("memory", r#"{"emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}"#),
    ("config", r#"{"configMap":{"name":"c","optional":true}}"#),
    (
        "secret",
        r#"{"secret":{"secretName":"s","optional":true,"defaultMode":256}}"#,
    ),
    (
        "token",
        r#"{"projected":{"sources":[{"serviceAccountToken":{"path":"token","audience":"a"}}]}}"#,
    ),
    (
        "pod",
        r#"{"downwardAPI":{"items":[{"path":"name","fieldRef":{"fieldPath":"metadata.name"}}]}}"#,
    ),
];

fn volume(name: &str, source: &str) -> Value {
    let mut volume: Value = serde_json::from_str(source).expect("a volume source");
    volume["name"] = json!(name);
    volume
}

/// Values that a field has or has not.
fn fields(of: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Map<String, Value>> {
    let each: Vec<_> = of
        .into_iter()
        .map(|(name, value)| prop::option::of(value).prop_map(move |value| (name, value)))
        .collect();
    each.prop_map(|fields| {
        let set = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        set.collect()
    })
}

fn one_of(values: Value) -> BoxedStrategy<Value> {
    let Value::Array(values) = values else {
        unreachable!("a list of values")
    };
    prop::sample::select(values).boxed()
}

fn word() -> BoxedStrategy<String> {
    let piece = prop::sample::select(vec![
        "$(A)", "$$(B)", "$(PATH)", "x", "é", "\n", "$", "(", " ", "\\", "\"",
    ]);
    prop::collection::vec(piece, 0..4)
        .prop_map(|pieces| pieces.concat())
        .boxed()
}

fn words() -> BoxedStrategy<Value> {
    prop::collection::vec(word(), 1..4)
        .prop_map(|words| json!(words))
        .boxed()
}

fn env() -> BoxedStrategy<Value> {
    let value = prop_oneof![
        3 => word().prop_map(|value| json!({ "value": value })),
        1 => Just(json!({ "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } })),
        1 => Just(json!({ "valueFrom": { "secretKeyRef": { "name": "s", "key": "k", "optional": true } } })),
    ];
    let name = prop::sample::select(vec!["A", "B", "PATH", "HOME", "lower.case-name"]);
    let variable = (name, value).prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        value
    });
    prop::collection::vec(variable, 0..4)
        .prop_map(Value::from)
        .boxed()
}

fn probe() -> BoxedStrategy<Value> {
    let action = prop_oneof![
        words().prop_map(|command| json!({ "exec": { "command": command } })),
        Just(json!({ "httpGet": { "path": "/x", "port": "http" } })),
        Just(json!({ "tcpSocket": { "port": 8080 } })),
        Just(json!({ "grpc": { "port": 8080 } })),
    ];
    (action, 1..9_i32)
        .prop_map(|(mut probe, period)| {
            probe["periodSeconds"] = json!(period);
            probe
        })
        .boxed()
}

fn lifecycle() -> BoxedStrategy<Value> {
    let handler = prop_oneof![
        words().prop_map(|command| json!({ "exec": { "command": command } })),
        Just(json!({ "httpGet": { "path": "/", "port": 8080 } })),
        Just(json!({ "sleep": { "seconds": 1 } })),
    ];
    (handler.clone(), handler)
        .prop_map(|(start, stop)| json!({ "postStart": start, "preStop": stop }))
        .boxed()
}

/// A container that mounts some of all volumes.
fn container(name: &'static str) -> BoxedStrategy<Value> {
    let known = fields(vec![
        ("command", words()),
        ("args", words()),
        ("env", env()),
        (
            "envFrom",
            one_of(
                json!([[], [{ "configMapRef": { "name": "c", "optional": true } }],
                          [{ "prefix": "P_", "secretRef": { "name": "s", "optional": true } }]]),
            ),
        ),
        ("livenessProbe", probe()),
        ("readinessProbe", probe()),
        ("startupProbe", probe()),
        ("lifecycle", lifecycle()),
        (
            "resources",
            one_of(
                json!([{}, { "requests": { "cpu": "1m" } }, { "limits": { "memory": "64Mi", "cpu": "0.5" } }]),
            ),
        ),
        (
            "securityContext",
            one_of(
                json!([{}, { "runAsUser": 7 }, { "runAsUser": 0 }, { "runAsGroup": 8, "runAsUser": 7 },
                          { "privileged": false }, { "readOnlyRootFilesystem": true },
                          { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                          { "seccompProfile": { "type": "RuntimeDefault" } }]),
            ),
        ),
        ("tty", any::<bool>().prop_map(Value::from).boxed()),
        ("stdin", any::<bool>().prop_map(Value::from).boxed()),
        ("workingDir", one_of(json!(["/", "/w", ""]))),
        ("imagePullPolicy", one_of(json!(["Always", "IfNotPresent"]))),
        (
            "terminationMessagePolicy",
            one_of(json!(["File", "FallbackToLogsOnError"])),
        ),
    ]);
    let mounts = prop::sample::subsequence(VOLUMES.to_vec(), 0..=VOLUMES.len());
    (known, mounts)
        .prop_map(move |(mut container, mounts)| {
            let mounts: Vec<Value> = mounts
                .iter()
                .map(|(volume, _)| json!({ "name": volume, "mountPath": format!("/mnt/{volume}") }))
                .collect();
            container.insert("name".to_owned(), json!(name));
            container.insert("image".to_owned(), json!("nginx:1.25"));
            container.insert("volumeMounts".to_owned(), Value::from(mounts));
            container.insert(
                "ports".to_owned(),
                json!([{ "name": "http", "containerPort": 8080 }]),
            );
            Value::Object(container)
        })
        .boxed()
}

fn pod_fields() -> impl Strategy<Value = Map<String, Value>> {
    fields(vec![
        (
            "securityContext",
            one_of(
                json!([{}, { "fsGroup": 1337 }, { "runAsUser": 9, "supplementalGroups": [4, 20] },
                          { "supplementalGroupsPolicy": "Strict" }, { "runAsGroup": 3, "runAsUser": 3 }]),
            ),
        ),
        (
            "affinity",
            one_of(
                json!([{}, { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] },
                                      { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["x"] }] }] } } },
                { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1,
                    "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname" } }] } }]),
            ),
        ),
        (
            "nodeSelector",
            one_of(json!([{}, { "kubernetes.io/os": "linux" }])),
        ),
        (
            "tolerations",
            one_of(
                json!([[], [{ "operator": "Exists" }], [{ "key": "a", "operator": "Equal", "value": "b" }]]),
            ),
        ),
        (
            "schedulingGates",
            one_of(json!([[], [{ "name": "example.com/gate" }]])),
        ),
        ("imagePullSecrets", one_of(json!([[], [{ "name": "theirs" }]]))),
        ("terminationGracePeriodSeconds", one_of(json!([0, 1, 30]))),
        ("enableServiceLinks", any::<bool>().prop_map(Value::from).boxed()),
        (
            "shareProcessNamespace",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
        (
            "automountServiceAccountToken",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
        ("restartPolicy", one_of(json!(["Always", "Never", "OnFailure"]))),
        ("dnsPolicy", one_of(json!(["ClusterFirst", "Default"]))),
        (
            "dnsConfig",
            one_of(json!([{ "searches": ["example.com"], "options": [{ "name": "ndots", "value": "1" }] }])),
        ),
        (
            "hostAliases",
            one_of(json!([[{ "ip": "192.0.2.1", "hostnames": ["x.example.com"] }]])),
        ),
        ("hostname", one_of(json!(["other"]))),
        ("subdomain", one_of(json!(["sub"]))),
        (
            "readinessGates",
            one_of(json!([[{ "conditionType": "example.com/gate" }]])),
        ),
        (
            "topologySpreadConstraints",
            one_of(json!([[{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                             "whenUnsatisfiable": "ScheduleAnyway" }]])),
        ),
        ("os", one_of(json!([{ "name": "linux" }]))),
    ])
}
