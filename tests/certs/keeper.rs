//! Secret and `caBundle`: made once, shared, put right whatever happens to them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use webhook_certs::{Keeper, Lifetimes, Options, Resolver, Source, Status};

use crate::api::FakeApi;
use crate::clock;

pub(crate) const SECRETS: &str = "/api/v1/namespaces/operators/secrets";
pub(crate) const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub(crate) const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

pub(crate) fn lifetimes() -> Lifetimes {
    Lifetimes {
        authority: Duration::from_hours(6),
        leaf: Duration::from_hours(1),
        overlap: Duration::from_mins(10),
        ..Lifetimes::default()
    }
}

/// A keeper at work.
pub(crate) struct Replica {
    pub(crate) resolver: Arc<Resolver>,
    status: tokio::sync::watch::Receiver<Status>,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    pub(crate) fn start(api: &FakeApi) -> Self {
        Self::start_with(api, Source::SelfManaged(lifetimes()))
    }

    fn start_with(api: &FakeApi, source: Source) -> Self {
        let options = Options {
            namespace: "operators".to_owned(),
            secret: "certs".to_owned(),
            service: "webhook".to_owned(),
            mutating: "ours".to_owned(),
            validating: "ours".to_owned(),
            source,
            clock: clock::now,
        };
        let keeper = Keeper::new(api.client(), options);
        let (resolver, status) = (keeper.resolver(), keeper.status());
        Self {
            resolver,
            status,
            task: tokio::spawn(keeper.run()),
        }
    }

    pub(crate) async fn ready(&mut self) {
        self.status.wait_for(|status| status.is_ready()).await.unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn configuration(kind: &str) -> Value {
    let webhook = |name: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": { "service": { "name": "webhook", "namespace": "operators" } },
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": "ours" }, "webhooks": [webhook("a.example"), webhook("b.example")],
    })
}

pub(crate) fn api() -> FakeApi {
    let api = FakeApi::new();
    api.put(MUTATING, configuration("MutatingWebhookConfiguration"));
    api.put(VALIDATING, configuration("ValidatingWebhookConfiguration"));
    api
}

fn decoded(value: &Value) -> String {
    let bytes: ByteString = serde_json::from_value(value.clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

/// What API servers trust now.
pub(crate) fn bundle(api: &FakeApi) -> String {
    decoded(&api.get(MUTATING, "ours").unwrap()["webhooks"][1]["clientConfig"]["caBundle"])
}

/// The authority that signs now.
pub(crate) fn authority(api: &FakeApi) -> String {
    decoded(&api.get(SECRETS, "certs").unwrap()["data"]["ca.crt"])
}

/// Whether every webhook of a configuration trusts the authority in the Secret.
fn is_trusted(api: &FakeApi, configuration: &Value) -> bool {
    let Some(secret) = api.get(SECRETS, "certs") else {
        return false;
    };
    let current = &secret["data"]["ca.crt"];
    configuration["webhooks"]
        .as_array()
        .unwrap()
        .iter()
        .all(|w| w["clientConfig"]["caBundle"] == *current)
}

#[tokio::test]
async fn f6_two_replicas_that_boot_without_a_secret_agree() {
    let api = api();
    let (mut one, mut two) = (Replica::start(&api), Replica::start(&api));
    one.ready().await;
    two.ready().await;
    for replica in [&one, &two] {
        assert_eq!(
            replica.resolver.leaf().unwrap().issuer.as_ref().unwrap().pem(),
            authority(&api)
        );
    }
    assert_eq!(bundle(&api), authority(&api));
    let stored = api.get(SECRETS, "certs").unwrap();
    assert_eq!(
        stored["data"].as_object().unwrap().len(),
        2,
        "no serving key is stored"
    );
}

#[tokio::test]
async fn the_job_waits_for_configurations_that_come_later() {
    let api = FakeApi::new();
    let mut replica = Replica::start(&api);
    api.until(SECRETS, "certs", |_| true).await;
    assert!(!replica.status.borrow().published);
    api.put(MUTATING, configuration("MutatingWebhookConfiguration"));
    api.put(VALIDATING, configuration("ValidatingWebhookConfiguration"));
    replica.ready().await;
    assert_eq!(bundle(&api), authority(&api));
}

#[tokio::test]
async fn f6_a_crash_between_secret_and_bundle_heals() {
    let api = api();
    Replica::start(&api).ready().await;
    api.put(MUTATING, configuration("MutatingWebhookConfiguration"));
    api.put(VALIDATING, configuration("ValidatingWebhookConfiguration"));
    let before = authority(&api);
    Replica::start(&api).ready().await;
    assert_eq!((authority(&api), bundle(&api)), (before.clone(), before));
}

#[rstest::rstest]
#[case::wiped(|c: &mut Value| { c["webhooks"][0]["clientConfig"].as_object_mut().unwrap().remove("caBundle"); })]
#[case::replaced(|c: &mut Value| c["webhooks"][1]["clientConfig"]["caBundle"] = json!("Zm9yZWlnbg=="))]
#[case::applied_anew(|c: &mut Value| c["webhooks"] = configuration("x")["webhooks"].clone())]
#[tokio::test]
async fn f8_a_bundle_that_another_client_changed_is_put_back_and_nothing_else(
    #[case] change: fn(&mut Value),
) {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    for collection in [MUTATING, VALIDATING] {
        let before = api.get(collection, "ours").unwrap();
        api.change(collection, "ours", |c| {
            change(c);
            c["webhooks"][0]["timeoutSeconds"] = json!(7);
        });
        let mut after = api.until(collection, "ours", |c| is_trusted(&api, c)).await;
        assert_eq!(after["webhooks"][0]["timeoutSeconds"], 7);
        after["webhooks"][0]
            .as_object_mut()
            .unwrap()
            .remove("timeoutSeconds");
        assert_eq!(after["webhooks"], before["webhooks"]);
    }
}

fn set(api: &FakeApi, key: &str, value: &str) {
    let value = serde_json::to_value(ByteString(value.as_bytes().to_vec())).unwrap();
    api.change(SECRETS, "certs", |secret| secret["data"][key] = value);
}

fn foreign() -> String {
    let authority =
        webhook_certs::authority::Authority::generate(clock::now(), Duration::from_hours(1)).unwrap();
    authority.certificate().pem().to_owned()
}

#[rstest::rstest]
#[case::deleted(|api: &FakeApi| api.delete(SECRETS, "certs"))]
#[case::emptied(|api: &FakeApi| api.change(SECRETS, "certs", |secret| secret["data"] = json!({})))]
#[case::truncated_key(|api: &FakeApi| set(api, "ca.key", "-----BEGIN"))]
#[case::truncated_certificate(|api: &FakeApi| set(api, "ca.crt", "-----BEGIN CERTIFICATE-----\nMIIB"))]
#[case::certificate_of_another_key(|api: &FakeApi| set(api, "ca.crt", &foreign()))]
#[tokio::test]
async fn f9_a_secret_that_was_deleted_or_damaged_is_replaced(#[case] damage: fn(&FakeApi)) {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    let before = authority(&api);
    damage(&api);
    for collection in [MUTATING, VALIDATING] {
        api.until(collection, "ours", |c| {
            is_trusted(&api, c) && authority(&api) != before
        })
        .await;
    }
    replica.ready().await;
    assert_eq!(
        replica.resolver.leaf().unwrap().issuer.as_ref().unwrap().pem(),
        authority(&api)
    );
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let api = api();
    let mut replica = Replica::start(&api);
    replica.ready().await;
    let before = api.writes();
    assert_eq!(before.len(), 3, "{before:?}");
    // A write of another client starts a pass. A second write shows that the first pass is over.
    for round in 0..2 {
        api.change(MUTATING, "ours", |c| {
            c["metadata"]["annotations"] = json!({ "round": round.to_string() });
        });
        tokio::task::yield_now().await;
    }
    Replica::start(&api).ready().await;
    assert_eq!(api.writes(), before);
}

fn supplied() -> Value {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["webhook.operators.svc".to_owned()]).unwrap();
    let encoded = |text: String| serde_json::to_value(ByteString(text.into_bytes())).unwrap();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "certs" },
        "data": {
            "tls.crt": encoded(cert.pem()), "tls.key": encoded(signing_key.serialize_pem()), "ca.crt": encoded(cert.pem()),
        },
    })
}

#[tokio::test]
async fn f9_a_supplied_certificate_is_served_published_and_followed() {
    let api = api();
    let mut replica = Replica::start_with(&api, Source::Supplied);
    // The keeper does not create a missing certificate or repair a damaged one: the administrator
    // supplies it.
    let first = supplied();
    let mut damaged = first.clone();
    damaged["data"]["tls.key"] = supplied()["data"]["tls.key"].clone();
    api.put(SECRETS, damaged);
    api.put(SECRETS, first.clone());
    replica.ready().await;
    assert_eq!(
        api.get(MUTATING, "ours").unwrap()["webhooks"][0]["clientConfig"]["caBundle"],
        first["data"]["ca.crt"]
    );

    let served = replica.resolver.leaf().unwrap().key.cert.clone();
    let second = supplied();
    api.put(SECRETS, second.clone());
    let trusts = |c: &Value| c["webhooks"][1]["clientConfig"]["caBundle"] == second["data"]["ca.crt"];
    api.until(VALIDATING, "ours", trusts).await;
    assert_ne!(replica.resolver.leaf().unwrap().key.cert, served);
    assert!(
        api.writes().iter().all(|write| !write.contains("secrets")),
        "{:?}",
        api.writes()
    );
}
