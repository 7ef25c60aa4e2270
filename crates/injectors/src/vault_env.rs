//! Bank-Vaults, after bank-vaults/vault-secrets-webhook: `pkg/webhook/pod.go` (`MutatePod`,
//! `mutateContainers`): an init container copies a program into a memory volume, and the program
//! becomes the command of every container that has a variable with a reference to a secret.

use json_patch::Patch;
use serde_json::{Value, json};

use crate::IMAGE;
use crate::pod::{edit_containers, edit_list, edited, has, list};

/// Where the program stands in every container.
const PROGRAM: &str = "/vault/vault-env";
const VOLUME: &str = "vault-env";

pub(crate) fn patch(pod: &Value) -> Patch {
    let wanted = list(&pod["spec"], "containers").iter().any(wants);
    if !wanted || has(list(&pod["spec"], "initContainers"), "copy-vault-env") {
        return Patch::default();
    }
    edited(pod, |pod| {
        edit_containers(pod, "containers", |container| {
            if wants(container) {
                put_in_front(container);
            }
        });
        edit_list(&mut pod["spec"], "initContainers", |init| {
            init.insert(
                0,
                json!({
                    "name": "copy-vault-env", "image": IMAGE,
                    "command": ["sh", "-c", "cp /usr/local/bin/vault-env /vault/"],
                    "volumeMounts": [mount()],
                    "securityContext": {
                        "runAsUser": 65534, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }),
            );
        });
        edit_list(&mut pod["spec"], "volumes", |volumes| {
            volumes.push(json!({ "name": VOLUME, "emptyDir": { "medium": "Memory" } }));
        });
    })
}

fn mount() -> Value {
    json!({ "name": VOLUME, "mountPath": "/vault/" })
}

fn wants(container: &Value) -> bool {
    let is_reference = |value: &str| value.starts_with("vault:") || value.starts_with(">>vault:");
    list(container, "env")
        .iter()
        .any(|v| v["value"].as_str().is_some_and(is_reference))
}

fn put_in_front(container: &mut Value) {
    let words = ["command", "args"]
        .map(|key| list(container, key).to_vec())
        .concat();
    container["command"] = json!([PROGRAM]);
    container["args"] = Value::Array(words);
    edit_list(container, "volumeMounts", |mounts| mounts.push(mount()));
    edit_list(container, "env", |env| {
        let settings = [
            ("VAULT_ADDR", "https://vault:8200"),
            ("VAULT_SKIP_VERIFY", "false"),
            ("VAULT_AUTH_METHOD", "jwt"),
            ("VAULT_PATH", "kubernetes"),
            ("VAULT_ROLE", "default"),
            ("VAULT_IGNORE_MISSING_SECRETS", ""),
            ("VAULT_ENV_PASSTHROUGH", ""),
            ("VAULT_JSON_LOG", "false"),
        ];
        env.extend(settings.map(|(name, value)| json!({ "name": name, "value": value })));
    });
}
