//! Helm, as an administrator runs it on the installed release.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde_json::Value;
use tempfile::NamedTempFile;
use testkit::{Namespace, cluster_command, kubectl, patience};

use crate::support::release::{CONTROLLERS, PATIENCE};

/// The chart of this repository.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/stoppablecontainer");
/// Labels of what the chart installs.
const LABELS: &str = "app.kubernetes.io/name=stoppablecontainer";
/// How the name of the Secret ends that the certificate job and the controllers write.
const CERTIFICATES: &str = "-webhook-certs";
/// Kinds of which the chart installs objects, or the controllers make them.
const KINDS: &str = "deployments,daemonsets,pods,services,secrets,configmaps,serviceaccounts,roles,rolebindings,leases,\
    networkpolicies,poddisruptionbudgets,clusterroles,clusterrolebindings,csidrivers,mutatingwebhookconfigurations,\
    validatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,flowschemas";

/// A release, with the values that it was installed with.
pub(crate) struct Helm {
    pub(super) name: String,
    pub(super) namespace: String,
    values: NamedTempFile,
}

// === impl Helm ===

impl Helm {
    /// The release that is installed on the cluster, by the annotations that Helm makes.
    pub(crate) async fn installed(ns: &Namespace) -> Result<Self> {
        let with_labels = kube::api::ListParams::default().labels(CONTROLLERS);
        let all = kube::Api::<Deployment>::all(ns.client.clone());
        let found = all.list(&with_labels).await?.items;
        let deployment = found.first().context("no Deployment of the controller")?;
        let of_helm = |key: &str| {
            let key = format!("meta.helm.sh/release-{key}");
            let value = deployment.annotations().get(&key).cloned();
            value.with_context(|| format!("Helm did not install the controller: no {key}"))
        };
        let (name, namespace) = (of_helm("name")?, of_helm("namespace")?);
        let values = helm(&["get", "values", &name, "-n", &namespace, "-o", "yaml"]).await?;
        let mut file = NamedTempFile::new()?;
        file.write_all(values.as_bytes())?;
        Ok(Self {
            name,
            namespace,
            values: file,
        })
    }

    /// Installs the release, or upgrades it to the chart and values with which it was found and
    /// `more`, and waits until it serves.
    pub(super) async fn upgrade(&self, more: &[&str]) -> Result<()> {
        self.apply(&["upgrade", "--install"], &self.namespace, more).await
    }

    /// Installs it in another namespace.
    pub(super) async fn install_in(&self, namespace: &str) -> Result<()> {
        self.apply(&["install"], namespace, &[]).await
    }

    async fn apply(&self, verb: &[&str], namespace: &str, more: &[&str]) -> Result<()> {
        let values = self.values.path().to_str().context("a name that is not text")?;
        let timeout = timeout();
        let args = [
            &self.name,
            CHART,
            "-n",
            namespace,
            "--create-namespace",
            "--wait",
            &timeout,
            "-f",
            values,
        ];
        helm(&[verb, &args, more].concat()).await?;
        agents_roll_out(namespace).await
    }

    /// Returns to a revision.
    pub(super) async fn roll_back(&self, revision: &str) -> Result<()> {
        let timeout = timeout();
        let args = ["rollback", &self.name, revision, "-n", &self.namespace];
        helm(&[&args[..], &["--wait", &timeout]].concat()).await?;
        agents_roll_out(&self.namespace).await
    }

    pub(super) async fn uninstall_from(&self, namespace: &str) -> Result<()> {
        let timeout = timeout();
        let args = ["uninstall", &self.name, "-n", namespace, "--wait", &timeout];
        helm(&args).await.map(drop)
    }

    /// The number of the revision that is installed.
    pub(super) async fn revision(&self) -> Result<String> {
        let status = helm(&["status", &self.name, "-n", &self.namespace, "-o", "json"]).await?;
        let status: Value = serde_json::from_str(&status)?;
        ensure!(
            status["info"]["status"] == "deployed",
            "the release is {}",
            status["info"]
        );
        Ok(status["version"].to_string())
    }

    /// Compares the cluster with what the chart rendered, as `kubectl diff` and GitOps tools do.
    /// Kubernetes deletes the certificate job some time after its end; the value
    /// `certificates.job.enabled` leaves it out for such tools.
    pub(crate) async fn does_not_drift(&self) -> Result<()> {
        let manifest = helm(&["get", "manifest", &self.name, "-n", &self.namespace]).await?;
        let objects = manifest.split("\n---\n");
        let objects = objects.filter(|object| !object.contains("\nkind: Job\n"));
        let objects: Vec<_> = objects.collect();
        let diff = kubectl(&["diff", "-f", "-"], &objects.join("\n---\n")).await?;
        ensure!(
            diff.code == 0,
            "the cluster is not as rendered: {}\n{}",
            diff.stdout,
            diff.stderr
        );
        Ok(())
    }
}

/// What is left in all namespaces of a release that was uninstalled, when its pods have ended,
/// besides the certificates: the next release in the namespace uses them again.
pub(super) async fn remainder() -> Result<Vec<String>> {
    let timeout = timeout();
    let pods = ["wait", "pods", "-A", "-l", LABELS, "--for=delete", &timeout];
    kubectl(&pods, "").await?.success()?;
    let args = ["get", KINDS, "-A", "-l", LABELS, "-o", "name"];
    let left = kubectl(&args, "").await?.success()?;
    let is_kept = |name: &str| name.starts_with("secret/") && name.ends_with(CERTIFICATES);
    let left = left.lines().filter(|name| !is_kept(name));
    Ok(left.map(str::to_owned).collect())
}

async fn helm(args: &[&str]) -> Result<String> {
    cluster_command("HELM", "helm", args).await
}

/// Helm counts a DaemonSet as ready although its only pod is not.
async fn agents_roll_out(namespace: &str) -> Result<()> {
    let timeout = timeout();
    let args = [
        "-n",
        namespace,
        "rollout",
        "status",
        "daemonsets,deployments",
        "-l",
        LABELS,
    ];
    kubectl(&[&args[..], &[&timeout]].concat(), "")
        .await?
        .success()
        .map(drop)
}

fn timeout() -> String {
    format!("--timeout={}s", patience(PATIENCE).as_secs())
}
