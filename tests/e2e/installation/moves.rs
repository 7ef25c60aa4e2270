//! The end of a release, and the next one in another namespace.

use anyhow::{Result, ensure};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::names::GROUP;
use testkit::{Namespace, alone_in_namespace, kubectl};

use super::helm::{Helm, remainder};
use crate::support::{cleaned_up, run, running, shell_template, start, stop};

/// `helm uninstall` is refused while there are objects, and leaves a release that works. So is a
/// second release. Without objects, `helm uninstall` leaves only the CRDs and certificates. The
/// CRDs are deleted as docs/operations.md says, and the chart works in a namespace of another name.
#[tokio::test]
async fn f27_a_release_is_uninstalled_only_without_objects_and_moves_to_another_namespace() {
    alone_in_namespace("uninstalled", async |ns, _alone| {
        let helm = Helm::installed(&ns).await?;
        let revision = helm.revision().await?;
        let elsewhere = format!("{}-elsewhere", ns.name);
        let moved = moved(&ns, &helm, &elsewhere, &revision).await;
        // After a failure, it may be in the way of the release, or that may be about to go.
        drop(helm.uninstall_from(&elsewhere).await);
        let cleaned = async {
            if helm.upgrade(&["--take-ownership"]).await.is_err() {
                helm.roll_back(&revision).await?;
            }
            let namespace = ["delete", "namespace", &elsewhere, "--ignore-not-found"];
            kubectl(&namespace, "").await?.success()?;
            helm.does_not_drift().await?;
            works(&ns).await
        };
        cleaned_up(moved, cleaned.await)
    })
    .await;
}

async fn moved(ns: &Namespace, helm: &Helm, elsewhere: &str, revision: &str) -> Result<()> {
    run(ns, "kept", shell_template()).await?;
    let refused = helm.uninstall_from(&helm.namespace).await;
    ensure!(refused.is_err(), "the release went although there are objects");
    // Helm upgrades a release again after a rollback to what it is.
    helm.roll_back(revision).await?;
    helm.upgrade(&[]).await?;
    let second = helm.install_in(elsewhere).await;
    let second = second.err().map(|error| format!("{error:#}")).unwrap_or_default();
    let named = [&helm.name, &helm.namespace]
        .iter()
        .all(|name| second.contains(*name));
    ensure!(named, "a second release is not refused by name: {second}");
    running(ns, "kept").await?;
    ns.delete::<StoppableContainer>("kept").await?;
    no_objects().await?;

    helm.uninstall_from(&helm.namespace).await?;
    let left = remainder().await?;
    ensure!(left.is_empty(), "left of the release: {left:?}");
    for kind in ["stoppablecontainers", "stoppablecontainerinstances"] {
        let crd = format!("{kind}.{GROUP}");
        kubectl(&["delete", "crd", &crd], "").await?.success()?;
    }
    helm.install_in(elsewhere).await?;
    works(ns).await?;
    no_objects().await?;
    helm.uninstall_from(elsewhere).await
}

/// A container keeps its file.
async fn works(ns: &Namespace) -> Result<()> {
    run(ns, "kept", shell_template()).await?;
    ns.sh("kept", "main", "echo kept > /root/file").await?;
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    let file = ns.sh("kept", "main", "cat /root/file").await?;
    ensure!(file == "kept", "the file has {file:?}");
    ns.delete::<StoppableContainer>("kept").await
}

/// Waits for the deletion of what earlier tests left in namespaces on their way out.
async fn no_objects() -> Result<()> {
    for kind in ["stoppablecontainers", "stoppablecontainerinstances"] {
        let args = ["wait", kind, "-A", "--all", "--for=delete", "--timeout=120s"];
        kubectl(&args, "").await?.success()?;
    }
    Ok(())
}
