/*!
`/metrics`: usage of kept filesystems and free space of their disks, collected at each request.

The metrics name tenants, so only authorized scrapers get them (see [`scraper`]), and over TLS,
because scrapers send tokens. The certificate is self-signed and new at every start, as with a
kubelet that has none: scrapers skip its verification.
*/

mod scraper;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{CONTENT_TYPE, Labels, Metric, Metrics, catalogue};
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_server::Server;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use stoppablecontainer_api::names::{ROLE_CONSUMER, ROLE_PROVIDER};
use tokio_util::sync::CancellationToken;

use self::scraper::Scrapers;
use crate::filesystem::Filesystems;
use crate::sync::orphans::FoundOrphans;
use crate::volumes::Role;

/// Gauges that are read at each scrape.
const GAUGES: [&Metric; 9] = [
    &catalogue::FILESYSTEM_BYTES,
    &catalogue::FILESYSTEM_INODES,
    &catalogue::VOLUMES,
    &catalogue::ORPHANED_FILESYSTEMS,
    &catalogue::DISK_FREE_BYTES,
    &catalogue::DISK_BYTES,
    &catalogue::DISK_FREE_INODES,
    &catalogue::DISK_INODES,
    &catalogue::ABANDONED_THREADS,
];

/// Values of these gauges, by name.
type Read = HashMap<&'static str, Vec<(Labels, i64)>>;

#[derive(Clone)]
struct Endpoint {
    filesystems: Arc<Filesystems>,
    orphans: Arc<FoundOrphans>,
    metrics: Metrics,
    read: Arc<Mutex<Read>>,
    scrapers: Arc<Scrapers>,
}

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Serves until the process ends.
pub(crate) async fn serve(
    filesystems: Arc<Filesystems>,
    orphans: Arc<FoundOrphans>,
    metrics: Metrics,
    address: SocketAddr,
) -> Result<()> {
    let scrapers = Arc::new(Scrapers::new(filesystems.client.clone()));
    let read = register(&metrics);
    let routes = Router::new().route("/metrics", get(text)).with_state(Endpoint {
        filesystems,
        orphans,
        metrics,
        read,
        scrapers,
    });
    let certificate = Arc::new(certificate().context("make a certificate for metrics")?);
    Server::bind(address, certificate, routes, Duration::ZERO)
        .await
        .with_context(|| format!("listen on {address}"))?
        .with_connections(CONNECTIONS)
        .run(CancellationToken::new())
        .await
        .context("serve metrics")
}

/// A self-signed certificate.
fn certificate() -> Result<SingleCertAndKey> {
    let made = rcgen::generate_simple_self_signed(["node-agent".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certified = CertifiedKey::new(vec![made.cert.der().clone()], any_ecdsa_type(&key)?);
    Ok(SingleCertAndKey::from(certified))
}

async fn text(State(endpoint): State<Endpoint>, headers: HeaderMap) -> Response {
    if let Err(refusal) = endpoint.scrapers.admit(&headers).await {
        return refusal.into_response();
    }
    let read = read(&endpoint.filesystems, &endpoint.orphans).await;
    *endpoint.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
    match endpoint.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Registers the gauges. The result takes their values.
fn register(metrics: &Metrics) -> Arc<Mutex<Read>> {
    let read = Arc::<Mutex<Read>>::default();
    for gauge in GAUGES {
        let (name, read) = (gauge.name, Arc::clone(&read));
        metrics.register_computed(gauge, move || {
            let read = read.lock().unwrap_or_else(PoisonError::into_inner);
            read.get(name).cloned().unwrap_or_default()
        });
    }
    read
}

async fn read(filesystems: &Filesystems, orphans: &FoundOrphans) -> Read {
    let mut read = Read::new();
    let mut set = |gauge: &Metric, labels: Labels, value: i64| {
        read.entry(gauge.name).or_default().push((labels, value));
    };
    for instance in filesystems.instances.all() {
        let state = instance.state();
        if let Some(usage) = state.filesystem().and_then(|filesystem| filesystem.usage) {
            let labels = vec![
                ("namespace", instance.id.namespace.clone()),
                ("name", instance.id.name.clone()),
            ];
            set(&catalogue::FILESYSTEM_BYTES, labels.clone(), usage.bytes);
            set(&catalogue::FILESYSTEM_INODES, labels, usage.inodes);
        }
    }
    let volumes = filesystems.volumes.all();
    for (role, name) in [(Role::Provider, ROLE_PROVIDER), (Role::Consumer, ROLE_CONSUMER)] {
        let number = volumes.iter().filter(|volume| volume.record.role == role).count();
        set(
            &catalogue::VOLUMES,
            vec![("role", name.to_owned())],
            gauge(number),
        );
    }
    let abandoned = filesystems.instances.abandoned_threads();
    set(&catalogue::ABANDONED_THREADS, Vec::new(), gauge(abandoned));
    for disk in filesystems.node.disks.iter() {
        let labels = || vec![("prefix", disk.path.display().to_string())];
        let count = orphans.count(&disk.path);
        set(&catalogue::ORPHANED_FILESYSTEMS, labels(), gauge(count));
        let Ok(space) = disk.space(&filesystems.node.host).await else {
            continue;
        };
        for (metric, number) in [
            (&catalogue::DISK_FREE_BYTES, space.free_bytes),
            (&catalogue::DISK_BYTES, space.bytes),
            (&catalogue::DISK_FREE_INODES, space.free_inodes),
            (&catalogue::DISK_INODES, space.inodes),
        ] {
            set(metric, labels(), gauge(number));
        }
    }
    read
}

fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tonic::Code;

    use super::*;
    use crate::counters::Counters;

    /// Each metric of the agent moves, and is served as the documentation describes it.
    #[test]
    fn the_catalogue_describes_what_is_served() {
        let metrics = Metrics::new("0");
        let counters = Counters::new(&metrics);
        let values = register(&metrics);
        for (at, metric) in GAUGES.iter().enumerate() {
            let labels = metric
                .labels
                .iter()
                .map(|(name, _)| (*name, format!("v{at}")))
                .collect();
            let value = (labels, gauge(at));
            values.lock().unwrap().insert(metric.name, vec![value]);
        }
        let second = Duration::from_secs(1);
        counters.csi_call("NodePublishVolume", Code::Ok, second);
        counters.prepared("Ready");
        counters.moved(second);
        counters.not_moved();
        counters.synced(true, second);
        counters.synced(false, second);
        let text = metrics.encode().unwrap();
        let common = catalogue::COMMON
            .iter()
            .filter(|metric| metric.name == "build_info");
        let expected: Vec<_> = catalogue::AGENT.iter().chain(common).copied().collect();
        assert_eq!(
            ::metrics::differences(&text, &expected),
            Vec::<String>::new(),
            "{text}"
        );

        let values: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.trim_start_matches("stoppablecontainer_").rsplit_once(' '))
            .collect();
        for (sample, value) in [
            ("csi_calls_total{method=\"NodePublishVolume\",code=\"Ok\"}", "1"),
            ("csi_call_seconds_sum{method=\"NodePublishVolume\"}", "1.0"),
            ("preparations_total{result=\"Ready\"}", "1"),
            ("moves_total{result=\"done\"}", "1"),
            ("moves_total{result=\"failed\"}", "1"),
            ("move_seconds_count", "1"),
            ("syncs_total{result=\"done\"}", "1"),
            ("syncs_total{result=\"failed\"}", "1"),
            ("sync_seconds_sum", "2.0"),
            ("volumes{role=\"v2\"}", "2"),
        ] {
            assert_eq!(values.get(sample), Some(&value), "{sample}\n{text}");
        }
    }
}
