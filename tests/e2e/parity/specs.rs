//! Images and pod specs of every kind, each as a plain pod and as a StoppableContainer, inspected
//! from inside in the same way.

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use testkit::{Namespace, in_namespace};

use super::{KEPT, PLAIN, assert_same, look_inside, run_both};

const SLEEP: [&str; 2] = ["/bin/sleep", "1000000"];

/// A template: fields of the main container and of the pod over an image.
fn template(image: &str, main: &Value, pod: &Value) -> Value {
    let mut container = json!({"name": "main", "image": image});
    json_patch::merge(&mut container, main);
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    json_patch::merge(&mut spec, pod);
    json!({ "spec": spec })
}

/// A container of the image that only sleeps.
fn asleep(main: &Value, pod: &Value) -> Value {
    let mut container = json!({"command": SLEEP});
    json_patch::merge(&mut container, main);
    template("ubuntu:22.04", &container, pod)
}

/// All ways to mount files from the API, and mounts within and over each other and over files of
/// the image.
fn many_volumes() -> Value {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let with = |mut mount: Value, field: &str, value: Value| {
        mount[field] = value;
        mount
    };
    let mounts = json!([
        mount("scratch", "/scratch"),
        mount("memory", "/scratch/memory"),
        mount("memory", "/dev/shm"),
        mount("config", "/etc/config"),
        with(mount("config", "/etc/one-file"), "subPath", json!("one")),
        with(mount("scratch", "/opt/of-pod"), "subPathExpr", json!("$(POD)")),
        with(mount("secret", "/usr/share"), "readOnly", json!(true)),
        mount("all", "/var/lib/all"),
        with(mount("host", "/host"), "readOnly", json!(true)),
    ]);
    asleep(
        &json!({
            "volumeMounts": mounts,
            "env": [{"name": "POD", "value": "the-pod"}],
        }),
        &json!({"volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            {"name": "config", "configMap": {"name": "settings", "defaultMode": 288}},
            {"name": "secret", "secret": {"secretName": "settings"}},
            {"name": "host", "hostPath": {"path": "/etc/ssl", "type": "Directory"}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "settings"}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                {"serviceAccountToken": {"path": "token", "audience": "test"}},
            ]}},
        ]}),
    )
}

async fn prepare(ns: &Namespace) -> Result<()> {
    let settings = json!({"metadata": {"name": "settings"}, "data": {"one": "MQ==", "TWO": "Mg=="}});
    ns.create_json::<ConfigMap>(settings.clone()).await?;
    ns.create_json::<Secret>(settings).await?;
    Ok(())
}

#[rstest::rstest]
#[case::image_entrypoint(template("nginx:1.25", &json!({}), &json!({})))]
#[case::args_to_the_entrypoint(template("nginx:1.25", &json!({"args": ["nginx", "-g", "daemon off;"]}), &json!({})))]
#[case::another_command(template("nginx:1.25", &json!({"command": SLEEP}), &json!({})))]
#[case::image_user(template("test/named-user:1", &json!({}), &json!({})))]
#[case::image_working_directory(template("python:3.11", &json!({"command": SLEEP, "workingDir": "/usr/lib"}), &json!({})))]
#[case::root(asleep(&json!({}), &json!({})))]
#[case::user_without_entry(asleep(&json!({"securityContext": {"runAsUser": 4711}}), &json!({})))]
#[case::group_alone(asleep(&json!({"securityContext": {"runAsUser": 0, "runAsGroup": 7}}), &json!({})))]
#[case::groups_of_the_pod(asleep(
    &json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
    &json!({
        "securityContext": {"runAsUser": 33, "fsGroup": 2000, "supplementalGroups": [4, 3000]},
        "volumes": [{"name": "v", "emptyDir": {}}],
    })
))]
#[case::read_only_root(asleep(
    &json!({
        "securityContext": {"readOnlyRootFilesystem": true},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }),
    &json!({"volumes": [{"name": "tmp", "emptyDir": {}}]})
))]
#[case::capabilities(asleep(
    &json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}}}),
    &json!({})
))]
#[case::privileged(asleep(&json!({"securityContext": {"privileged": true}}), &json!({})))]
#[case::no_new_privileges(asleep(
    &json!({"securityContext": {
        "allowPrivilegeEscalation": false, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"},
    }}),
    &json!({})
))]
#[case::no_seccomp(asleep(&json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), &json!({})))]
#[case::terminal(asleep(&json!({"tty": true, "stdin": true}), &json!({})))]
#[case::names(asleep(
    &json!({}),
    &json!({
        "hostname": "elsewhere", "subdomain": "below",
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["seven.example.com"]}],
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["example.com"]},
    })
))]
#[case::node_network(asleep(&json!({}), &json!({"hostNetwork": true})))]
#[case::shared_processes(asleep(&json!({}), &json!({"shareProcessNamespace": true})))]
#[case::sysctls(asleep(
    &json!({}),
    &json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}})
))]
#[case::environment(asleep(
    &json!({
        "env": [
            {"name": "LD_LIBRARY_PATH", "value": "/nowhere"}, {"name": "PATH", "value": "/bin:/usr/bin"},
            {"name": "REF", "value": "$(TWO) $(P_one) $$(TWO) $(NONE)"}, {"name": "HOME", "value": "/else"},
        ],
        "envFrom": [{"secretRef": {"name": "settings"}}, {"prefix": "P_", "configMapRef": {"name": "settings"}}],
    }),
    &json!({})
))]
#[case::limits(asleep(
    &json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}),
    &json!({})
))]
#[case::volumes(many_volumes())]
#[tokio::test]
async fn i5_the_inside_of_a_container_is_that_of_a_plain_pod(#[case] template: Value) {
    in_namespace("parity-spec", async |ns| {
        prepare(&ns).await?;
        run_both(&ns, &template).await?;
        assert_same(&look_inside(&ns, PLAIN).await?, &look_inside(&ns, KEPT).await?)
    })
    .await;
}
