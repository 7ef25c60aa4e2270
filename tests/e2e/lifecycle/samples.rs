//! The samples, including those of docs/api.md, run verbatim with the objects that they name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::{Namespace, in_namespace};

use crate::support::{running, start, stop};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/samples")
        .join(name)
}

async fn apply(ns: &Namespace, name: &str) -> Result<()> {
    let path = sample(name).display().to_string();
    ns.kubectl(&["apply", "-f", &path]).await?.success()?;
    Ok(())
}

/// A claim that binds when its first consumer is scheduled, on a volume of one node.
struct LocalStorage<'a> {
    ns: &'a Namespace,
}

impl<'a> LocalStorage<'a> {
    async fn claim(ns: &'a Namespace, claim: &str, node: &str) -> Result<Self> {
        let name = &ns.name;
        let classes: Api<StorageClass> = ns.cluster_api();
        let class = json!({
            "metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        classes
            .create(&PostParams::default(), &serde_json::from_value(class)?)
            .await?;
        let volumes: Api<PersistentVolume> = ns.cluster_api();
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": format!("/mnt/disks/{name}"), "type": "DirectoryOrCreate"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]}},
            }
        });
        volumes
            .create(&PostParams::default(), &serde_json::from_value(volume)?)
            .await?;
        ns.create_json::<PersistentVolumeClaim>(json!({
            "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                "resources": {"requests": {"storage": "1Gi"}},
            }
        }))
        .await?;
        Ok(Self { ns })
    }

    async fn remove(self) -> Result<()> {
        let now = DeleteParams::default();
        self.ns
            .cluster_api::<PersistentVolume>()
            .delete(&self.ns.name, &now)
            .await?;
        self.ns
            .cluster_api::<StorageClass>()
            .delete(&self.ns.name, &now)
            .await?;
        Ok(())
    }
}

async fn any_node(ns: &Namespace) -> Result<String> {
    let nodes = ns.cluster_api::<Node>().list(&ListParams::default()).await?;
    Ok(nodes.items.first().context("a cluster without nodes")?.name_any())
}

async fn service_account(ns: &Namespace, name: &str) -> Result<()> {
    ns.create_json::<ServiceAccount>(json!({"metadata": {"name": name}}))
        .await?;
    Ok(())
}

fn claims_mounted(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes
        .filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone()))
        .collect()
}

#[tokio::test]
async fn the_python_example_of_the_api_reference_runs_verbatim() {
    in_namespace("sample-python", async |ns| {
        let storage = LocalStorage::claim(&ns, "my-pvc", &any_node(&ns).await?).await?;
        service_account(&ns, "my-service-account").await?;
        apply(&ns, "python-http.yaml").await?;
        let pod = running(&ns, "python-http").await?;
        ensure!(claims_mounted(&pod) == ["my-pvc"], "the claim is not in the pod");
        let listing = ns.http_get("python-http", 8080, "/").await?;
        ensure!(listing.contains("Directory listing"), "{listing}");
        ns.sh("python-http", "main", "echo kept > /root/file").await?;
        stop(&ns, "python-http").await?;
        start(&ns, "python-http").await?;
        ensure!(
            ns.sh("python-http", "main", "cat /root/file; echo $DEBUG")
                .await?
                == "kept\ntrue"
        );
        storage.remove().await
    })
    .await;
}

#[tokio::test]
async fn the_complete_example_of_the_api_reference_runs_verbatim() {
    in_namespace("sample-complete", async |ns| {
        let node = any_node(&ns).await?;
        let labels: Value = json!({"metadata": {"labels": {"node-type": "development"}}});
        ns.cluster_api::<Node>()
            .patch(&node, &PatchParams::default(), &Patch::Merge(labels))
            .await?;
        let storage = LocalStorage::claim(&ns, "dev-workspace-pvc", &node).await?;
        service_account(&ns, "developer-sa").await?;
        apply(&ns, "complete.yaml").await?;
        let pod = running(&ns, "development-env").await?;
        ensure!(
            pod.labels().get("app").map(String::as_str) == Some("dev-env"),
            "the template's labels are lost"
        );
        ensure!(pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()) == Some("developer-sa"));
        ns.sh(
            "development-env",
            "main",
            "echo volume > /workspace/file; echo root > /root/file",
        )
        .await?;
        stop(&ns, "development-env").await?;
        start(&ns, "development-env").await?;
        let files = ns
            .sh(
                "development-env",
                "main",
                "cat /workspace/file /root/file; echo $ENVIRONMENT",
            )
            .await?;
        ensure!(files == "volume\nroot\ndevelopment", "{files}");
        storage.remove().await
    })
    .await;
}

/// The sample of the demo, and an instance that a user created.
#[tokio::test]
async fn the_other_samples_run() {
    in_namespace("sample-others", async |ns| {
        apply(&ns, "nginx.yaml").await?;
        apply(&ns, "instance.yaml").await?;
        running(&ns, "nginx").await?;
        ensure!(
            ns.http_get("nginx", 80, "/").await?.contains("nginx"),
            "the image's page is not served"
        );
        ns.pod_ready("example").await?;
        Ok(())
    })
    .await;
}

/// Stops and starts a container, and compares a file.
async fn keeps(ns: &Namespace, name: &str, container: &str, file: &str) -> Result<()> {
    ns.sh(name, container, &format!("echo kept > {file}")).await?;
    stop(ns, name).await?;
    start(ns, name).await?;
    let content = ns.sh(name, container, &format!("cat {file}")).await?;
    ensure!(content == "kept", "{name}: {content}");
    Ok(())
}

#[tokio::test]
async fn the_development_environment_keeps_its_host_keys() {
    in_namespace("sample-devcontainer", async |ns| {
        ns.create_json::<Secret>(json!({
            "metadata": {"name": "dev-ssh"}, "stringData": {"authorized_keys": ""},
        }))
        .await?;
        apply(&ns, "devcontainer.yaml").await?;
        running(&ns, "dev").await?;
        let keys = "cat /etc/ssh/ssh_host_*_key.pub";
        let before = ns.sh("dev", "dev", keys).await?;
        ensure!(before.contains("ssh-ed25519"), "{before}");
        keeps(&ns, "dev", "dev", "/usr/local/bin/tool").await?;
        ensure!(
            ns.sh("dev", "dev", keys).await? == before,
            "the host keys changed"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_notebook_and_the_editor_run_the_commands_of_their_images() {
    in_namespace("sample-editors", async |ns| {
        apply(&ns, "notebook.yaml").await?;
        apply(&ns, "web-editor.yaml").await?;
        running(&ns, "notebook").await?;
        running(&ns, "web-editor").await?;
        keeps(&ns, "notebook", "notebook", "/home/jovyan/work.ipynb").await?;
        let files = ns.http_get("notebook", 8888, "/").await?;
        ensure!(files.contains("work.ipynb"), "{files}");
        keeps(&ns, "web-editor", "editor", "/home/coder/main.rs").await?;
        let health = ns.http_get("web-editor", 8080, "/healthz").await?;
        ensure!(health.contains("alive"), "{health}");
        Ok(())
    })
    .await;
}

/// Whether the network plugin enforces the policy is not a matter of the product: that of the local
/// cluster does not.
#[tokio::test]
async fn the_sandbox_of_an_agent_has_no_token_and_its_policy_selects_it() {
    in_namespace("sample-sandbox", async |ns| {
        apply(&ns, "agent-sandbox.yaml").await?;
        let pod = running(&ns, "agent-sandbox").await?;
        let policy = ns.api::<NetworkPolicy>().get("agent-sandbox").await?;
        let spec = policy.spec.context("a policy without a spec")?;
        let selector = spec
            .pod_selector
            .unwrap_or_default()
            .match_labels
            .unwrap_or_default();
        ensure!(
            selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value)),
            "the policy does not select the pod"
        );
        ensure!(
            spec.ingress.is_none() && spec.egress.is_none(),
            "the policy allows traffic"
        );
        let token = "ls /var/run/secrets/kubernetes.io 2>&1 || true";
        let token = ns.sh("agent-sandbox", "sandbox", token).await?;
        ensure!(token.contains("No such file"), "{token}");
        keeps(&ns, "agent-sandbox", "sandbox", "/tmp/result").await
    })
    .await;
}
