/*!
`/livez`, `/readyz` and `/metrics`, over plain HTTP on an address of their own.

The metrics do not name objects, namespaces or users: every client that can reach the port may read
them. Metrics that name tenants belong behind authentication, as in the node agent.
*/

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{CONTENT_TYPE, Metrics};
use tokio_util::sync::CancellationToken;

use crate::liveness::Liveness;
use crate::runtime::Readiness;

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: Metrics,
    liveness: Liveness,
    shutdown: CancellationToken,
}

/// The routes.
pub fn router(
    readiness: Readiness,
    metrics: Metrics,
    liveness: Liveness,
    shutdown: CancellationToken,
) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Admin {
            readiness,
            metrics,
            liveness,
            shutdown,
        })
}

/// A process with a blocked event loop does not answer at all, which the kubelet takes for the
/// same.
async fn live(State(admin): State<Admin>) -> Response {
    match admin.liveness.stuck() {
        None => "ok\n".into_response(),
        Some(stuck) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stuck}\n")).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let missing = admin.readiness.missing();
    if admin.shutdown.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response()
    } else if missing.is_empty() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}\n", missing.join(", ")),
        )
            .into_response()
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
