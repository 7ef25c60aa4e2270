//! A ResourceQuota of the namespace counts provider and consumer, as it counts other pods.

use anyhow::Result;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};
use testkit::{Namespace, in_namespace};

use crate::support::{run, shell_template, start, stop};

const QUOTA: &str = "room";

/// The quota has room for the provider and one pod with the consumer's request, and so not for
/// placeholder, provider and consumer at once: the placeholder makes way, and only the other two
/// count from then on. A stopped object counts as its provider.
#[tokio::test]
async fn a_quota_with_room_for_provider_and_consumer_is_enough() {
    in_namespace("quota", async |ns| {
        ns.create_json::<ResourceQuota>(json!({
            "metadata": { "name": QUOTA },
            "spec": { "hard": { "pods": "2", "requests.cpu": "150m" } },
        }))
        .await?;
        counted(&ns, 0).await?;
        run(&ns, "kept", template()).await?;
        counted(&ns, 2).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        for _ in 0..2 {
            stop(&ns, "kept").await?;
            counted(&ns, 1).await?;
            start(&ns, "kept").await?;
            counted(&ns, 2).await?;
        }
        ns.sh("kept", "main", "grep kept /root/file").await.map(drop)
    })
    .await;
}

/// A shell whose request the quota has room for once.
fn template() -> Value {
    let mut template = shell_template();
    template["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m" } });
    template
}

/// Waits until the quota counts so many pods: it learns of created and deleted pods later.
async fn counted(ns: &Namespace, pods: usize) -> Result<()> {
    let counts = |quota: &ResourceQuota| {
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        used.and_then(|used| used.get("pods"))
            .is_some_and(|used| used.0 == pods.to_string())
    };
    ns.wait(QUOTA, &format!("it counts {pods} pods"), counts)
        .await
        .map(drop)
}
