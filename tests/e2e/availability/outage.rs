//! While the webhook is down, only consumers wait, and no manual action is needed afterwards.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, alone_in_namespace};

use crate::support::release::Release;
use crate::support::{creation_refused, run, running, shell_template};

#[tokio::test]
async fn i10_f1_webhook_down_only_consumers_wait_and_heal_alone() {
    alone_in_namespace("outage", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;

        let release = Release::find(&ns.client).await?;
        release
            .without_endpoints(async || {
                // The API server's open connections to the webhook end with its pods. The new pods
                // reconcile but cannot be reached.
                release.replace_controllers().await?;
                while_down(&ns).await
            })
            .await?;

        running(&ns, "kept").await?;
        ensure!(
            ns.sh("kept", "main", "cat /root/file").await? == "kept",
            "the file is gone"
        );
        Ok(())
    })
    .await;
}

async fn while_down(ns: &Namespace) -> Result<()> {
    ns.api::<Pod>().delete("kept", &DeleteParams::default()).await?;
    // The reconciler tries to create the pod again and is rejected. The object reports it, and the
    // reconciler does not give up.
    creation_refused(ns, "kept").await?;
    let object = ns.api::<StoppableContainer>().get("kept").await?;
    let phase = object.status.as_ref().and_then(|s| s.phase);
    ensure!(
        phase != Some(Phase::Failed),
        "an outage of the webhook is not a failure of the object: {phase:?}"
    );

    let mut plain = shell_template();
    plain["metadata"] = json!({"name": "plain"});
    ns.create_json::<Pod>(plain).await?;
    ns.pod_ready("plain").await?;
    Ok(())
}
