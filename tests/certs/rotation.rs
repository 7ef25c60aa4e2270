//! Rotation while clients connect all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_server::Server;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use webhook_certs::Resolver;

use crate::api::FakeApi;
use crate::keeper::{MUTATING, Replica, SECRETS, api, authority, bundle, lifetimes};
use crate::{clock, tls};

async fn serve(resolver: Arc<Resolver>) -> SocketAddr {
    let router = Router::new().route("/", get(|| async { "ok" }));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, resolver, router, Duration::from_secs(1))
        .await
        .unwrap();
    let address = server.local_address().unwrap();
    tokio::spawn(server.run(CancellationToken::new()));
    address
}

/// Makes keepers compare the time with their schedule, by writes of another client, until `done` is
/// true.
async fn wait_until(api: &FakeApi, done: impl Fn() -> bool) {
    let mut round = 0;
    while !done() {
        round += 1;
        assert!(round < 10_000, "nothing happened");
        if round % 100 == 1 {
            api.change(MUTATING, "ours", |c| {
                c["metadata"]["annotations"] = json!({ "round": round.to_string() });
            });
        }
        tokio::task::yield_now().await;
    }
}

/// Clients that connect all the time, each with the bundle that the API has at that moment.
struct Load {
    end: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(api: &FakeApi, addresses: &[SocketAddr]) -> Self {
        let (end, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |address: SocketAddr| {
            let (api, end, done) = (api.clone(), end.clone(), done.clone());
            tokio::spawn(async move {
                let mut errors = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    if let Err(error) = tls::get(address, &bundle(&api), "/").await {
                        errors.push(error);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                errors
            })
        };
        Self {
            clients: addresses.iter().map(|address| client(*address)).collect(),
            end,
            done,
        }
    }

    /// Some more connections have been made.
    async fn goes_on(&self) {
        let target = self.done.load(Ordering::Relaxed) + 4 * self.clients.len();
        while self.done.load(Ordering::Relaxed) < target {
            tokio::task::yield_now().await;
        }
    }

    async fn errors(self) -> Vec<String> {
        self.end.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for client in self.clients {
            errors.extend(client.await.unwrap());
        }
        errors
    }
}

#[tokio::test]
async fn f5_ten_rotations_of_the_serving_certificate_under_load() {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    let address = serve(replica.resolver.clone()).await;
    let load = Load::start(&api, &[address]);
    let mut seen = vec![tls::presented(address, &bundle(&api)).await];
    for _ in 0..10 {
        let old = replica.resolver.leaf().unwrap().validity;
        clock::advance(lifetimes().leaf * 2 / 3);
        wait_until(&api, || replica.resolver.leaf().unwrap().validity != old).await;
        load.goes_on().await;
        seen.push(tls::presented(address, &bundle(&api)).await);
    }
    assert_eq!(load.errors().await, Vec::<String>::new());
    seen.dedup();
    assert_eq!(seen.len(), 11);
}

#[tokio::test]
async fn f6_the_authority_rotates_under_load_without_a_failed_handshake() {
    let api = api();
    let (mut one, mut two) = (Replica::start(&api), Replica::start(&api));
    one.ready().await;
    two.ready().await;
    let addresses = [
        serve(one.resolver.clone()).await,
        serve(two.resolver.clone()).await,
    ];
    let load = Load::start(&api, &addresses);
    let old = authority(&api);

    // Two thirds of its life: the next one is published and signs nothing.
    clock::advance(lifetimes().authority * 2 / 3);
    wait_until(&api, || bundle(&api).matches("BEGIN").count() == 2).await;
    load.goes_on().await;
    assert_eq!(authority(&api), old);

    // One overlap later it signs.
    clock::advance(lifetimes().overlap);
    wait_until(&api, || authority(&api) != old).await;
    let new = authority(&api);
    let signs = |replica: &Replica| replica.resolver.leaf().unwrap().issuer.as_ref().unwrap().pem() == new;
    wait_until(&api, || signs(&one) && signs(&two)).await;
    load.goes_on().await;
    assert!(bundle(&api).contains(&old) && bundle(&api).contains(&new));

    // And one more later the old one is gone.
    clock::advance(lifetimes().overlap);
    wait_until(&api, || bundle(&api) == new).await;
    load.goes_on().await;
    assert_eq!(load.errors().await, Vec::<String>::new());
    let keys: Vec<_> = api.get(SECRETS, "certs").unwrap()["data"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, ["ca.crt", "ca.key"]);
}

#[tokio::test]
async fn f7_a_clock_a_year_ahead_is_met_with_new_certificates() {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    let address = serve(replica.resolver.clone()).await;
    let old = authority(&api);
    clock::advance(Duration::from_hours(24 * 365));
    wait_until(&api, || authority(&api) != old && bundle(&api) == authority(&api)).await;
    wait_until(&api, || {
        replica.resolver.leaf().unwrap().issuer.as_ref().unwrap().pem() == authority(&api)
    })
    .await;
    tls::get(address, &bundle(&api), "/").await.unwrap();
}

#[tokio::test]
async fn f5_an_expired_certificate_is_not_served() {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    let address = serve(replica.resolver.clone()).await;
    let bundle = bundle(&api);
    drop(replica);
    tls::connect(address, &bundle, "http/1.1").await.unwrap();
    clock::advance(lifetimes().leaf + Duration::from_secs(1));
    let error = tls::connect(address, &bundle, "http/1.1")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("AccessDenied") || error.contains("alert"),
        "the server refuses, not the client: {error}"
    );
}
