//! The samples, including those of docs/api.md, run verbatim with the objects that they name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
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
