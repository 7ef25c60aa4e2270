//! What the plugin says when something is in the way.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::in_namespace;

use super::{failed, stopc};
use crate::support::{create, shell_template};

/// A start that cannot succeed ends at once, with the cause.
#[tokio::test]
async fn plugin_a_failed_start_ends_with_its_cause() {
    in_namespace("plugin-failed", async |ns| -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "kept" },
            "spec": { "containers": [{ "name": "main", "image": "ubuntu:22.04" }] },
        });
        ns.create_json::<Pod>(pod).await?;
        create(&ns, "kept", false, shell_template()).await?;
        stopc(&ns, &["wait", "kept", "--for=stopped"]).await?.success()?;
        let start = stopc(&ns, &["start", "kept", "--timeout=10m"]).await?;
        failed(&start, 1, "NameConflict: ")?;
        failed(
            &stopc(&ns, &["status", "kept"]).await?,
            1,
            "kept is not running as requested",
        )
    })
    .await;
}

/// A wait that takes too long ends with exit code 3, and says how to continue.
#[tokio::test]
async fn plugin_a_wait_that_takes_too_long() {
    in_namespace("plugin-late", async |ns| -> Result<()> {
        create(&ns, "kept", false, shell_template()).await?;
        stopc(&ns, &["wait", "kept", "--for=stopped"]).await?.success()?;
        let wait = stopc(&ns, &["wait", "kept", "--for=running", "--timeout=1s"]).await?;
        failed(&wait, 3, "kubectl stopc start kept")
    })
    .await;
}

/// A user without permissions gets the name of the role.
#[tokio::test]
async fn plugin_a_user_without_permissions() {
    in_namespace("plugin-user", async |ns| -> Result<()> {
        let user = format!("--as=system:serviceaccount:{}:default", ns.name);
        let list = stopc(&ns, &["list", &user]).await?;
        failed(&list, 1, "stoppablecontainer-view")
    })
    .await;
}

/// An unknown context, an unreachable server and an absent object are one sentence each.
#[tokio::test]
async fn plugin_what_is_not_there() {
    in_namespace("plugin-absent", async |ns| -> Result<()> {
        let context = stopc(&ns, &["list", "--context", "none"]).await?;
        failed(&context, 1, "does not have the context \"none\"")?;
        let server = stopc(&ns, &["list", "--server", "https://127.0.0.1:1"]).await?;
        failed(&server, 1, "the API server cannot be reached")?;
        let object = stopc(&ns, &["stop", "absent"]).await?;
        failed(&object, 1, "\"absent\" not found")?;
        ensure!(object.stderr.trim_end().lines().count() == 1, "{object:#?}");
        Ok(())
    })
    .await;
}

/// `doctor` finds nothing wrong with this cluster, and its bundle has no secrets of users.
#[tokio::test]
async fn plugin_doctor_of_a_healthy_cluster() {
    in_namespace("plugin-doctor", async |ns| -> Result<()> {
        let mut template = shell_template();
        template["spec"]["containers"][0]["env"] = json!([{ "name": "TOKEN", "value": "secret-of-mine" }]);
        create(&ns, "kept", true, template).await?;
        stopc(&ns, &["wait", "kept", "--for=ready"]).await?.success()?;
        let file = std::env::temp_dir().join(format!("{}.yaml", ns.name));
        let path = file.display().to_string();
        let doctor = stopc(&ns, &["doctor", "--bundle", &path]).await?;
        let bundle = std::fs::read_to_string(&file);
        let _ = std::fs::remove_file(&file);
        let text = doctor.success()?;
        for check in ["CRDs", "controller", "webhook", "node agents", "agent per node"] {
            let line = text
                .lines()
                .find(|line| line.split("  ").any(|part| part.trim() == check));
            ensure!(
                line.is_some_and(|line| line.starts_with("ok ")),
                "{check} is not ok:\n{text}"
            );
        }
        let bundle = bundle?;
        ensure!(
            bundle.contains(&ns.name) && bundle.contains("TOKEN"),
            "the object is not in it"
        );
        ensure!(!bundle.contains("secret-of-mine"), "the bundle has a secret");
        Ok(())
    })
    .await;
}
