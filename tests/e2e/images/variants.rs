//! Images and security contexts that are common on clusters: scratch, named users, restricted
//! namespaces, read-only.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::{Namespace, in_namespace};

use crate::support::{run, shell_template, start, stop};

/// An image with only one static binary and a numeric USER, without shell, /etc and mount points.
#[tokio::test]
async fn i5_scratch_image_runs_and_is_kept() {
    in_namespace("scratch", async |ns| {
        let template = json!({"spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "test/scratch:1"}],
        }});
        run(&ns, "kept", template).await?;
        let id = ns.exec("kept", "main", &["/static", "id"]).await?.success()?;
        ensure!(id.contains("65532"), "USER of the image is not honoured: {id}");
        ns.exec("kept", "main", &["/static", "write", "/notes", "kept"])
            .await?
            .success()?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        let file = ns
            .exec("kept", "main", &["/static", "cat", "/notes"])
            .await?
            .success()?;
        ensure!(file.contains("kept"), "the file is gone: {file}");
        Ok(())
    })
    .await;
}

/// In a plain pod, the kubelet cannot check a named USER against runAsNonRoot. The product resolves
/// the name.
#[tokio::test]
async fn i5_named_user_with_run_as_non_root() {
    in_namespace("named-user", async |ns| {
        let template = json!({"spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "main", "image": "test/named-user:1"}],
        }});
        run(&ns, "kept", template).await?;
        let who = ns
            .sh("kept", "main", "id -un; id -u; id -g; id -G; pwd; echo $HOME")
            .await?;
        ensure!(
            who.starts_with("app\n1000\n1000\n1000"),
            "not the image's user: {who}"
        );
        ensure!(
            who.ends_with("/home/app/work\n/home/app"),
            "not the image's directories: {who}"
        );
        // The environment of the main process, not of `kubectl exec`.
        let main = ns
            .sh(
                "kept",
                "main",
                "tr '\\0' '\\n' < /proc/1/environ; readlink /proc/1/cwd; id -G",
            )
            .await?;
        ensure!(
            main.contains("HOME=/home/app\n"),
            "HOME of the main process: {main}"
        );
        ensure!(
            main.contains("/home/app/work"),
            "working directory of the main process: {main}"
        );
        Ok(())
    })
    .await;
}

/// Both pods pass the Pod Security level that the template alone passes.
#[tokio::test]
async fn i6_restricted_namespace() {
    in_namespace("restricted", async |ns| {
        enforce_restricted(&ns).await?;
        let mut template = shell_template();
        template["spec"]["securityContext"] =
            json!({"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}});
        template["spec"]["containers"][0]["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        run(&ns, "kept", template).await?;
        ensure!(ns.sh("kept", "main", "id -u; grep CapEff /proc/self/status").await?.ends_with("0000000000000000"));
        ns.sh("kept", "main", "echo kept > /tmp/file").await?;
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /tmp/file").await? == "kept");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn i5_read_only_root_filesystem() {
    in_namespace("read-only", async |ns| {
        let mut template = shell_template();
        template["spec"]["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
        template["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "scratch", "mountPath": "/made/for/it"}]);
        template["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
        run(&ns, "kept", template).await?;
        let refused = ns.exec("kept", "main", &["/bin/touch", "/file"]).await?;
        ensure!(
            refused.code != 0 && refused.stderr.contains("Read-only file system"),
            "{refused:?}"
        );
        ns.sh("kept", "main", "touch /made/for/it/file /dev/shm/file")
            .await?;
        Ok(())
    })
    .await;
}

async fn enforce_restricted(ns: &Namespace) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let api = ns.cluster_api::<NamespaceObject>();
    api.patch(&ns.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
