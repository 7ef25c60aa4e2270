//! Leadership: one holder, judged by local clocks, and given up in time.

use std::time::Duration;

use serde_json::{Value, json};
use stoppablecontainer::lease::{Lease, LeaseOptions};
use testkit::scripted::Scripted;
use tokio::time::Instant;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/controller";

fn candidate(identity: &str) -> (Lease, Scripted) {
    let (client, api) = Scripted::new();
    (
        Lease::new(client, LeaseOptions::new("system", "controller", identity)),
        api,
    )
}

fn held_by(identity: &str, renewed: &str, version: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "controller", "namespace": "system", "uid": "u", "resourceVersion": version },
        "spec": {
            "holderIdentity": identity, "leaseDurationSeconds": 15, "leaseTransitions": 1,
            "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": renewed,
        },
    })
}

/// Answers the list with which a watch begins.
async fn list(api: &mut Scripted, leases: &[Value]) {
    let call = api.expect("GET", LEASES).await;
    assert!(
        call.query.contains("metadata.name%3Dcontroller"),
        "{}",
        call.query
    );
    call.answer(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": { "resourceVersion": "10" }, "items": leases,
    }));
}

/// A holder that acquired an absent lease, and the lease as stored.
async fn holder() -> (Lease, Scripted, Value) {
    let (mut lease, mut api) = candidate("me");
    let acquired = tokio::spawn(async move {
        lease.acquire().await;
        lease
    });
    list(&mut api, &[]).await;
    let stored = api.expect("POST", LEASES).await.create("u");
    assert_eq!(stored["spec"]["holderIdentity"], json!("me"));
    assert_eq!(stored["spec"]["leaseDurationSeconds"], json!(15));
    (acquired.await.unwrap(), api, stored)
}

#[tokio::test(start_paused = true)]
async fn an_absent_lease_is_made() {
    holder().await;
}

/// The other machine's clock is years ahead: what counts is that nothing changed for the whole
/// duration here.
#[tokio::test(start_paused = true)]
async fn expiry_is_judged_by_the_local_clock() {
    let (mut lease, mut api) = candidate("me");
    let began = Instant::now();
    let acquired = tokio::spawn(async move {
        lease.acquire().await;
    });
    list(&mut api, &[held_by("other", "2099-01-01T00:00:00.000000Z", "10")]).await;
    let take = api.expect("PUT", LEASE).await;
    assert!(
        began.elapsed() >= Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        take.body["metadata"]["resourceVersion"],
        json!("10"),
        "of two candidates one wins"
    );
    assert_eq!(take.body["spec"]["holderIdentity"], json!("me"));
    assert_eq!(take.body["spec"]["leaseTransitions"], json!(2));
    let stored = take.body.clone();
    take.answer(&stored);
    acquired.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_renews_is_left_alone() {
    let (mut lease, mut api) = candidate("me");
    let acquiring = tokio::spawn(async move { lease.acquire().await });
    list(&mut api, &[held_by("other", "2026-01-01T00:00:00.000000Z", "10")]).await;
    for beat in 1..=5_u32 {
        api.quiet(Duration::from_secs(10)).await;
        let renewed = held_by(
            "other",
            &format!("2026-01-01T00:00:{:02}.000000Z", beat * 10),
            &format!("{}", 10 + beat),
        );
        api.tell(&[json!({ "type": "MODIFIED", "object": renewed })]);
    }
    let began = Instant::now();
    api.expect("PUT", LEASE)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    assert!(
        began.elapsed() >= Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );
    assert!(!acquiring.is_finished(), "a lost race does not make a leader");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_is_taken_at_once() {
    let (mut lease, mut api) = candidate("me");
    let began = Instant::now();
    let acquired = tokio::spawn(async move { lease.acquire().await });
    list(&mut api, &[held_by("", "2026-01-01T00:00:00.000000Z", "10")]).await;
    let take = api.expect("PUT", LEASE).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let stored = take.body.clone();
    take.answer(&stored);
    acquired.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_same_pod_restarted_does_not_wait_for_itself() {
    let (mut lease, mut api) = candidate("me");
    let acquired = tokio::spawn(async move { lease.acquire().await });
    list(&mut api, &[held_by("me", "2026-01-01T00:00:00.000000Z", "10")]).await;
    let take = api.expect("PUT", LEASE).await;
    assert_eq!(
        take.body["spec"]["leaseTransitions"],
        json!(1),
        "it did not change hands"
    );
    let stored = take.body.clone();
    take.answer(&stored);
    acquired.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_well_before_it_expires() {
    let (mut lease, mut api, _) = holder().await;
    let holding = tokio::spawn(async move { lease.renew_until_lost().await });
    for beat in 0..5_u32 {
        let began = Instant::now();
        let renewal = api.expect("PUT", LEASE).await;
        assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
        let mut stored = renewal.body.clone();
        stored["metadata"]["resourceVersion"] = json!((100 + beat).to_string());
        renewal.answer(&stored);
    }
    assert!(!holding.is_finished());
}

/// The API server does not answer any replica: the holder stops before another one can start.
#[tokio::test(start_paused = true)]
async fn it_is_given_up_before_another_can_take_it() {
    let (mut lease, mut api, _) = holder().await;
    let began = Instant::now();
    let holding = tokio::spawn(async move { lease.renew_until_lost().await });
    let unanswered = api.expect("PUT", LEASE).await;
    holding.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(unanswered);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_replica_took_is_lost_at_once() {
    let (mut lease, mut api, _) = holder().await;
    let holding = tokio::spawn(async move { lease.renew_until_lost().await });
    api.expect("PUT", LEASE)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    api.expect("GET", LEASE)
        .await
        .answer(&held_by("other", "2026-01-01T00:00:00.000000Z", "50"));
    holding.await.unwrap();
}

/// Another client set an annotation on it. It is still ours.
#[tokio::test(start_paused = true)]
async fn a_write_of_a_third_party_is_no_loss() {
    let (mut lease, mut api, _) = holder().await;
    let holding = tokio::spawn(async move { lease.renew_until_lost().await });
    api.expect("PUT", LEASE)
        .await
        .refuse(409, "Conflict", "the object has been modified");
    api.expect("GET", LEASE)
        .await
        .answer(&held_by("me", "2026-01-01T00:00:00.000000Z", "50"));
    let again = api.expect("PUT", LEASE).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], json!("50"));
    let stored = again.body.clone();
    again.answer(&stored);
    assert!(!holding.is_finished());
}

#[tokio::test(start_paused = true)]
async fn it_is_given_back_on_exit() {
    let (mut lease, mut api, _) = holder().await;
    let vacated = tokio::spawn(async move { lease.release().await });
    let last = api.expect("PUT", LEASE).await;
    assert!(last.body["spec"].get("holderIdentity").is_none());
    assert_eq!(last.body["metadata"]["resourceVersion"], json!("1"));
    let stored = last.body.clone();
    last.answer(&stored);
    vacated.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_held_is_not_given_back() {
    let (mut lease, mut api) = candidate("me");
    lease.release().await;
    lease.renew_until_lost().await;
    api.quiet(Duration::from_mins(1)).await;
}
