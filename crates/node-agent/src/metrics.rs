/*!
`/metrics`, over plain HTTP: what kept filesystems take and what their disks have
left. Put together when it is asked for, so nothing has to be kept up to date.
*/

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::agent::Agent;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Instance {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Disk {
    prefix: String,
}

/// Serves until the process ends.
pub(crate) async fn serve(agent: Arc<Agent>, address: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let routes = Router::new().route("/metrics", get(text)).with_state(agent);
    axum::serve(listener, routes).await.context("serve metrics")
}

async fn text(State(agent): State<Arc<Agent>>) -> Response {
    match encoded(&collect(&agent).await) {
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

async fn collect(agent: &Agent) -> Registry {
    let mut registry = Registry::with_prefix("stoppablecontainer");
    let (bytes, inodes) = (
        Family::<Instance, Gauge>::default(),
        Family::<Instance, Gauge>::default(),
    );
    for instance in agent.instances.all() {
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
        "Space that a kept filesystem takes, as last measured",
        bytes,
    );
    registry.register(
        "filesystem_inodes",
        "Inodes that a kept filesystem takes, as last measured",
        inodes,
    );
    let left_behind = Gauge::<i64>::default();
    left_behind.set(i64::try_from(agent.instances.left_behind()).unwrap_or(i64::MAX));
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
    for disk in agent.disks.iter() {
        let Ok(space) = disk.space(&agent.host).await else {
            continue;
        };
        let labels = Disk {
            prefix: disk.path.display().to_string(),
        };
        let numbers = [space.free_bytes, space.bytes, space.free_inodes, space.inodes];
        for (family, number) in disks.iter().zip(numbers) {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(number);
        }
    }
    registry
}
