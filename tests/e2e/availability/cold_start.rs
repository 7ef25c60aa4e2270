//! The whole cluster loses its power and starts again (F2).

use std::time::Instant;

use anyhow::ensure;
use kube::ResourceExt;
use stoppablecontainer_api::Phase;
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{alone_in_namespace, cluster_command};

use super::load::callable;
use crate::support::node::running_after_reboot;
use crate::support::release::Release;
use crate::support::{phase, run, shell_template, start, stop};

#[tokio::test]
async fn f2_after_a_cold_start_all_is_as_it_was_without_a_human() {
    alone_in_namespace("cold-start", async |ns, _alone| {
        for name in ["kept", "asleep"] {
            run(&ns, name, shell_template()).await?;
            ns.sh(name, "main", "echo kept > /root/file && sync").await?;
        }
        stop(&ns, "asleep").await?;
        let release = Release::find(&ns.client).await?;
        let before = release.configuration().await?;

        let what = "the command that cuts the power of the whole cluster, control plane and nodes, and starts it again";
        let begun = Instant::now();
        cluster_command("E2E_RESTART_COMMAND", what, &[]).await?;
        let up = begun.elapsed();
        ns.pod_restarted(&provider_pod_name("kept"), "provider", 1).await?;
        ns.pod_restarted(&provider_pod_name("asleep"), "provider", 1).await?;
        ns.pod_restarted("kept", "main", 1).await?;
        running_after_reboot(&ns, "kept").await?;
        phase(&ns, "asleep", Phase::Stopped).await?;
        release.rolled_out().await?;
        callable(&ns, 20).await?;
        println!("the cluster was up again after {up:?}, and all on it after {:?}", begun.elapsed());

        ensure!(
            ns.sh("kept", "main", "cat /root/file").await? == "kept",
            "the running one lost its file"
        );
        start(&ns, "asleep").await?;
        ensure!(
            ns.sh("asleep", "main", "cat /root/file").await? == "kept",
            "the stopped one lost its file"
        );
        ensure!(
            release.configuration().await?.uid() == before.uid(),
            "a webhook configuration is another one"
        );
        Ok(())
    })
    .await;
}
