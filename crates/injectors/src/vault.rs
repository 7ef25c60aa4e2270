//! The Vault agent injector, after hashicorp/vault-k8s: `agent-inject/handler.go`,
//! `agent-inject/agent/agent.go` (`New`, `Patch`), `patch.go`, `container_sidecar.go`,
//! `container_init_sidecar.go`, `container_volume.go`, `config.go`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde_json::{Map, Value, json};

use crate::IMAGE;
use crate::pod::{Operations, annotation, has, list, token_mount};

/// What the stand-in for the agent writes as the value of every secret.
pub const SECRET: &str = "stand-in-secret-5f2c";

const PREFIX: &str = "vault.hashicorp.com/";
const SECRET_PREFIX: &str = "vault.hashicorp.com/agent-inject-secret-";
const STATUS: &str = "vault.hashicorp.com/agent-inject-status";

pub(crate) fn patch(pod: &Value) -> Result<Patch, String> {
    let asked = annotation(pod, "vault.hashicorp.com/agent-inject") == "true";
    if !asked || annotation(pod, STATUS) == "injected" {
        return Ok(Patch::default());
    }
    let containers = list(&pod["spec"], "containers");
    let token = containers
        .iter()
        .find_map(token_mount)
        .ok_or("error creating new agent sidecar: failed to find service account volume mount")?;
    if annotation(pod, "vault.hashicorp.com/role").is_empty() {
        return Err("error validating agent configuration: no Vault role found".to_owned());
    }

    let mut operations = Operations::default();
    let volumes = ["home-init", "home-sidecar", "vault-secrets"]
        .map(|name| json!({ "name": name, "emptyDir": { "medium": "Memory" } }));
    let count = list(&pod["spec"], "volumes").len();
    operations.append(&["spec", "volumes"], count, volumes);
    mount_secrets(&mut operations, "containers", containers);

    let old = list(&pod["spec"], "initContainers");
    let init = container(pod, token, true);
    let path = ["spec", "initContainers"];
    if annotation(pod, "vault.hashicorp.com/agent-init-first") == "true" {
        // The list is taken away and added again behind the agent.
        if !old.is_empty() {
            operations.remove(path);
        }
        let all: Vec<Value> = [init].into_iter().chain(old.iter().cloned()).collect();
        operations.append(&path, 0, all.clone());
        mount_secrets(&mut operations, "initContainers", &all);
    } else {
        operations.append(&path, old.len(), [init]);
        mount_secrets(&mut operations, "initContainers", old);
    }
    operations.append(
        &["spec", "containers"],
        containers.len(),
        [container(pod, token, false)],
    );
    operations.add(["metadata", "annotations", STATUS], json!("injected"));
    Ok(operations.into_patch())
}

fn secrets_mount() -> Value {
    json!({ "name": "vault-secrets", "mountPath": "/vault/secrets" })
}

/// Mounts the secrets into every container but the agent's own, by index.
fn mount_secrets(operations: &mut Operations, key: &str, containers: &[Value]) {
    for (at, container) in containers.iter().enumerate() {
        let mounts = list(container, "volumeMounts");
        if container["name"] != "vault-agent-init" && !has(mounts, "vault-secrets") {
            let path = ["spec", key, &at.to_string(), "volumeMounts"];
            operations.append(&path, mounts.len(), [secrets_mount()]);
        }
    }
}

fn container(pod: &Value, token: &Value, init: bool) -> Value {
    let token = json!({ "name": token["name"], "mountPath": token["mountPath"], "readOnly": true });
    let mut mounts = if init {
        vec![json!({ "name": "home-init", "mountPath": "/home/vault" }), token]
    } else {
        vec![
            token,
            json!({ "name": "home-sidecar", "mountPath": "/home/vault" }),
        ]
    };
    mounts.push(secrets_mount());
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut container = json!({
        "name": if init { "vault-agent-init" } else { "vault-agent" },
        "image": IMAGE,
        "command": ["/bin/sh", "-ec"],
        "args": ["echo ${VAULT_CONFIG?} | base64 -d > /home/vault/config.json && vault agent -config=/home/vault/config.json"],
        "env": [
            field("NAMESPACE", "metadata.namespace"),
            field("HOST_IP", "status.hostIP"),
            field("POD_IP", "status.podIP"),
            { "name": "VAULT_LOG_LEVEL", "value": "info" },
            { "name": "VAULT_LOG_FORMAT", "value": "standard" },
            { "name": "VAULT_CONFIG", "value": STANDARD.encode(config(pod, init).to_string()) },
        ],
        // Half a core and 128Mi in the original, which is a setting of the installation.
        "resources": {
            "limits": { "cpu": "500m", "memory": "64Mi" },
            "requests": { "cpu": "10m", "memory": "16Mi" },
        },
        "securityContext": {
            "runAsUser": 100, "runAsGroup": 1000, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false,
        },
        "volumeMounts": mounts,
    });
    if !init {
        container["lifecycle"] = json!({});
    }
    container
}

/// The agent's configuration: it logs in, and renders a template for each secret that an annotation
/// names.
fn config(pod: &Value, init: bool) -> Value {
    let nothing = Map::new();
    let annotations = pod["metadata"]["annotations"].as_object().unwrap_or(&nothing);
    let templates: Vec<Value> = annotations
        .iter()
        .filter_map(|(key, path)| Some((key.strip_prefix(SECRET_PREFIX)?, path.as_str()?)))
        .map(|(name, path)| {
            json!({
                "destination": format!("/vault/secrets/{}", name.to_lowercase()),
                "contents": format!(
                    "{{{{ with secret \"{path}\" }}}}{{{{ range $k, $v := .Data }}}}{{{{ $k }}}}: {{{{ $v }}}}\n{{{{ end }}}}{{{{ end }}}}"
                ),
                "left_delimiter": "{{",
                "right_delimiter": "}}",
            })
        })
        .collect();
    json!({
        "auto_auth": {
            "method": {
                "type": "kubernetes", "mount_path": "auth/kubernetes",
                "config": {
                    "role": annotation(pod, &format!("{PREFIX}role")),
                    "token_path": "/var/run/secrets/kubernetes.io/serviceaccount/token",
                },
            },
            "sink": [{ "type": "file", "config": { "path": "/home/vault/.vault-token" } }],
        },
        "exit_after_auth": init,
        "pid_file": "/home/vault/.pid",
        "vault": { "address": "https://vault.vault.svc:8200" },
        "template": templates,
        "template_config": { "exit_on_retry_failure": true },
    })
}
