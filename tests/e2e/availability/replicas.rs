//! Replicas that are added and removed, gracefully (F3) and by a kill (F4).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::{Namespace, NodeShell, alone_in_namespace};

use super::load::{callable, none_failed, under_load};
use crate::support::release::Release;
use crate::support::{container_id, node_of, uid_of};

/// Number of kills, unless `E2E_KILLS` is set.
const KILLS: usize = 10;

/// The time of a kill, and the time after which calls must succeed.
struct Kill {
    begun: Instant,
    over: Instant,
}

#[tokio::test]
async fn f3_no_call_fails_during_five_rolling_updates() {
    alone_in_namespace("rollout", async |ns, _alone| {
        let release = Release::find(&ns.client).await?;
        let updates = async {
            for update in 0..5 {
                let mark = format!("{}-{update}", ns.name);
                release
                    .roll(json!({"metadata": {"annotations": {"e2e/restarted": mark}}}))
                    .await?;
            }
            Ok(())
        };
        let ((), calls) = under_load(&ns, updates).await?;
        none_failed(&calls)
    })
    .await;
}

/// Calls that are in flight at a kill fail. So may calls that start before the cluster has noticed
/// the kill.
#[tokio::test]
async fn f4_after_a_replica_was_killed_no_call_fails() {
    alone_in_namespace("killed", async |ns, _alone| {
        let count = std::env::var("E2E_KILLS").map_or(Ok(KILLS), |text| text.parse())?;
        let release = Release::find(&ns.client).await?;
        let kills = async {
            let mut kills = Vec::new();
            for _ in 0..count {
                kills.push(kill_oldest(&ns, &release).await?);
            }
            Ok(kills)
        };
        let (kills, calls) = under_load(&ns, kills).await?;

        let mut longest = Duration::ZERO;
        let mut lost = 0;
        for call in &calls {
            let Some(error) = &call.error else { continue };
            let kill = kills
                .iter()
                .find(|kill| call.ended >= kill.begun && call.begun <= kill.over)
                .with_context(|| format!("a call failed although no replica was killed: {error}"))?;
            lost += 1;
            longest = longest.max(call.begun.saturating_duration_since(kill.begun));
        }
        println!(
            "{count} kills, {lost} of {} calls lost, the last of them begun {longest:?} after the kill",
            calls.len()
        );
        ensure!(calls.len() > 50 * count, "only {} calls were made", calls.len());
        Ok(())
    })
    .await;
}

/// Kills the oldest replica, so that it is a different one each time, and lets another pod replace
/// it. For the same pod the kubelet would increase its back-off.
async fn kill_oldest(ns: &Namespace, release: &Release) -> Result<Kill> {
    let mut pods = release.controllers().await?;
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let victim = pods.first().context("there is no replica")?;
    let (uid, id) = (uid_of(victim), container_id(victim, "operator")?);
    let shell = NodeShell::on(ns, &node_of(victim)?).await?;
    release
        .endpoints("the other replica is ready", |ready| {
            ready.len() >= 2 && ready.contains(&uid)
        })
        .await?;

    let begun = Instant::now();
    shell.kill_first(&id).await?;
    release
        .endpoints("the killed replica is not called any more", |ready| {
            !ready.contains(&uid)
        })
        .await?;
    // The API server gets the change at the same time as the test. Its next response is the first
    // that can include it.
    callable(ns, 1).await?;
    let over = Instant::now();

    release
        .api::<Pod>()
        .delete(&victim.name_any(), &DeleteParams::default())
        .await?;
    release
        .endpoints("another replica is ready in its place", |ready| {
            ready.len() >= 2 && !ready.contains(&uid)
        })
        .await?;
    Ok(Kill { begun, over })
}
