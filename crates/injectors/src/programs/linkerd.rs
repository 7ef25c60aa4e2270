//! `linkerd2-proxy` without the proxy: its admin server; and `linkerd-await`, which waits for it.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::{serve, terminated, until_answered};

/// The proxy is configured by its environment alone.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("LINKERD2_PROXY_ADMIN_LISTEN_ADDR").is_some()
}

/// The proxy's entrypoint.
pub(crate) async fn proxy() -> Result<()> {
    let admin = Router::new()
        .route("/ready", get(async || StatusCode::OK))
        .route("/live", get(async || StatusCode::OK));
    tokio::select! {
        result = serve(4191, admin) => result,
        result = terminated() => result,
    }
}

/// `linkerd-await --timeout=2m --port=4191`.
pub(crate) async fn wait() -> Result<()> {
    until_answered("127.0.0.1:4191", "/ready", Duration::from_mins(2)).await
}
