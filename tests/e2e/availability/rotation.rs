//! Certificate rotation under load (F5, F6), and a replica that is paused across a rotation (F7).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use testkit::tunnel::{Handshake, Shown};
use testkit::{NodeShell, alone_in_namespace};

use tokio::task::JoinHandle;

use super::lives::{Lives, with_lives};
use super::load::{callable, none_failed, under_load};
use crate::installation::helm::Helm;
use crate::support::release::Release;
use crate::support::{container_id, node_of, uid_of};

/// Number of serving certificates that each replica must serve, unless `E2E_ROTATIONS` is set.
const ROTATIONS: usize = 10;

/// Interval between two handshakes with a replica.
const PACE: Duration = Duration::from_millis(200);

/// Number of connections that are opened while a replica is paused.
const WAITING: usize = 8;

/// The certificates that a replica served.
#[derive(Default)]
struct Seen {
    leaves: BTreeSet<Vec<u8>>,
    issuers: BTreeSet<String>,
    handshakes: usize,
}

/// During rotations of certificates and authorities, all calls and new connections succeed, with
/// the bundle that is published at that moment. Afterwards, a GitOps tool sees no drift: what an
/// hour changes in the cluster are certificates.
#[tokio::test]
async fn f5_f6_rotations_of_leaves_and_some_of_the_authority_without_an_error() {
    alone_in_namespace("rotation", async |ns, _alone| {
        let count = std::env::var("E2E_ROTATIONS").map_or(Ok(ROTATIONS), |text| text.parse())?;
        let release = Release::find(&ns.client).await?;
        let lives = Lives {
            authority: "180s",
            leaf: "60s",
            overlap: "30s",
        };
        let (seen, calls) = with_lives(&ns, &release, lives, async || {
            let replicas = release.controllers().await?;
            let watching = replicas.iter().map(|pod| watch_leaves(&release, pod, count));
            under_load(&ns, try_join_all(watching)).await
        })
        .await?;
        for seen in &seen {
            println!(
                "{} handshakes, {} certificates of {} authorities",
                seen.handshakes,
                seen.leaves.len(),
                seen.issuers.len()
            );
            // An authority lives as long as three certificates.
            ensure!(seen.issuers.len() > count / 5, "the authority was not replaced");
        }
        none_failed(&calls)?;
        Helm::installed(&ns).await?.does_not_drift().await
    })
    .await;
}

/// A leader is paused until its certificate has expired. It never serves that certificate again,
/// gets a new one, and has lost the lease.
#[tokio::test]
async fn f7_a_replica_that_slept_over_its_certificate_shows_no_expired_one() {
    alone_in_namespace("asleep", async |ns, _alone| {
        let release = Release::find(&ns.client).await?;
        let lives = Lives {
            authority: "1h",
            leaf: "60s",
            overlap: "1m",
        };
        with_lives(&ns, &release, lives, async || {
            let leader = release.leader("a replica leads", |_| true).await?;
            let pod = release.api::<Pod>().get(&leader).await?;
            let (uid, id) = (uid_of(&pod), container_id(&pod, "operator")?);
            let shell = NodeShell::on(&ns, &node_of(&pod)?).await?;
            let awake = release.shake_hands(&pod).await?.shown.context("no certificate")?;
            shell.signal_first(&id, "STOP").await?;
            // Also after a failure, because a paused process does not react to a termination.
            let slept = sleep_until(&release, &pod, awake.not_after).await;
            shell.signal_first(&id, "CONT").await?;
            let (waiting, next_leader) = slept?;

            let mut refused = 0;
            for handshake in try_join_all(waiting).await? {
                let Some(shown) = handshake?.shown else {
                    refused += 1;
                    continue;
                };
                ensure!(
                    shown != awake && SystemTime::now() < shown.not_after,
                    "an expired certificate was shown: {shown:?}"
                );
            }
            println!("of {WAITING} connections that waited {refused} were refused, the others saw a new certificate");
            release
                .endpoints("the replica is called again", |ready| {
                    ready.len() >= 2 && ready.contains(&uid)
                })
                .await?;
            let awake = release.api::<Pod>().get(&leader).await?;
            ensure!(
                container_id(&awake, "operator")? == id,
                "the replica was restarted, and did not wake up"
            );
            release.shake_hands(&pod).await?.connection?;
            let still = release.leader("a replica leads", |_| true).await?;
            ensure!(still == next_leader, "{still} leads, and not {next_leader}");
            callable(&ns, 20).await
        })
        .await
    })
    .await;
}

type Waiting = Vec<JoinHandle<Result<Handshake>>>;

/// Waits until the certificate of a paused replica has expired and another replica leads. Returns
/// connections that wait for the paused replica, and the leader.
async fn sleep_until(release: &Release, pod: &Pod, not_after: SystemTime) -> Result<(Waiting, String)> {
    let connect = |_| {
        let (release, pod) = (release.clone(), pod.clone());
        tokio::spawn(async move { release.shake_hands(&pod).await })
    };
    let waiting = (0..WAITING).map(connect).collect();
    let stopped = pod.name_any();
    let leader = release
        .leader("another replica leads", |name| name != stopped)
        .await?;
    // This depends on the clock and cannot be watched. One more second, because certificates do not
    // have fractions of seconds.
    let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    Ok((waiting, leader))
}

/// Connects to a replica until it has served this number of certificates. Every handshake must
/// succeed.
async fn watch_leaves(release: &Release, pod: &Pod, count: usize) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut pace = tokio::time::interval(PACE);
    while seen.leaves.len() < count {
        pace.tick().await;
        let Handshake { shown, connection } = release.shake_hands(pod).await?;
        connection.with_context(|| {
            format!(
                "handshake {} with {}, which showed {shown:?}",
                seen.handshakes,
                pod.name_any()
            )
        })?;
        let Shown { der, issuer, .. } = shown.context("a handshake without a certificate")?;
        seen.leaves.insert(der);
        seen.issuers.insert(issuer);
        seen.handshakes += 1;
    }
    Ok(seen)
}
