/*!
`/metrics`: usage of kept filesystems and free space of their disks, collected at each request.

The metrics name tenants, so only authorized scrapers get them (see [`scraper`]), and over TLS,
because scrapers send tokens. The certificate is self-signed and new at every start, as with a
kubelet that has none: scrapers skip its verification.
*/

mod scraper;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_server::Server;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_util::sync::CancellationToken;

use self::scraper::Scrapers;
use crate::filesystem::Filesystems;
use crate::sync::orphans::FoundOrphans;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Instance {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Disk {
    prefix: String,
}

#[derive(Clone)]
struct Endpoint {
    filesystems: Arc<Filesystems>,
    orphans: Arc<FoundOrphans>,
    scrapers: Arc<Scrapers>,
}

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Serves until the process ends.
pub(crate) async fn serve(
    filesystems: Arc<Filesystems>,
    orphans: Arc<FoundOrphans>,
    address: SocketAddr,
) -> Result<()> {
    let scrapers = Arc::new(Scrapers::new(filesystems.client.clone()));
    let routes = Router::new().route("/metrics", get(text)).with_state(Endpoint {
        filesystems,
        orphans,
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
    match encoded(&collect(&endpoint.filesystems, &endpoint.orphans).await) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn encoded(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

async fn collect(filesystems: &Filesystems, found: &FoundOrphans) -> Registry {
    let mut registry = Registry::with_prefix("stoppablecontainer");
    let (bytes, inodes) = (
        Family::<Instance, Gauge>::default(),
        Family::<Instance, Gauge>::default(),
    );
    for instance in filesystems.instances.all() {
        let state = instance.state();
        if let Some(usage) = state.filesystem().and_then(|filesystem| filesystem.usage) {
            let labels = Instance {
                namespace: instance.id.namespace.clone(),
                name: instance.id.name.clone(),
            };
            bytes.get_or_create(&labels).set(usage.bytes);
            inodes.get_or_create(&labels).set(usage.inodes);
        }
    }
    registry.register(
        "filesystem_bytes",
        "Disk space of a kept filesystem, as last measured",
        bytes,
    );
    registry.register(
        "filesystem_inodes",
        "Inodes of a kept filesystem, as last measured",
        inodes,
    );
    let left_behind = Gauge::<i64>::default();
    left_behind.set(i64::try_from(filesystems.instances.abandoned_threads()).unwrap_or(i64::MAX));
    registry.register(
        "threads_left_behind",
        "Threads that wait for disks or mounted file systems that do not answer",
        left_behind,
    );
    let disks = [
        ("disk_free_bytes", "Free space on the disk of a data directory"),
        ("disk_bytes", "Size of the disk of a data directory"),
        ("disk_free_inodes", "Free inodes on the disk of a data directory"),
        ("disk_inodes", "Inodes of the disk of a data directory"),
    ]
    .map(|(name, help)| {
        let family = Family::<Disk, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    });
    let orphans = Family::<Disk, Gauge>::default();
    registry.register(
        "orphaned_filesystems",
        "Kept filesystems without an instance, as last counted",
        orphans.clone(),
    );
    for disk in filesystems.node.disks.iter() {
        let labels = Disk {
            prefix: disk.path.display().to_string(),
        };
        let count = i64::try_from(found.count(&disk.path)).unwrap_or(i64::MAX);
        orphans.get_or_create(&labels).set(count);
        let Ok(space) = disk.space(&filesystems.node.host).await else {
            continue;
        };
        let numbers = [space.free_bytes, space.bytes, space.free_inodes, space.inodes];
        for (family, number) in disks.iter().zip(numbers) {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(number);
        }
    }
    registry
}
