//! `pilot-agent`, as istio/istio `pilot/cmd/pilot-agent/status/server.go` serves the kubelet:
//! readiness on 15021, and the application's probes on 15020, which it passes on as
//! `ISTIO_KUBE_APP_PROBERS` says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{serve, terminated, until_answered};

/// `pilot-agent proxy sidecar`, without the proxy.
pub(crate) async fn proxy() -> Result<()> {
    let ready = Router::new().route("/healthz/ready", get(async || StatusCode::OK));
    let application = Arc::new(Application::from_environment()?);
    let probes = Router::new()
        .route("/app-health/{container}/{probe}", get(probe))
        .with_state(application);
    tokio::select! {
        result = serve(15_021, ready) => result,
        result = serve(15_020, probes) => result,
        result = terminated() => result,
    }
}

/// `pilot-agent wait`.
pub(crate) async fn wait() -> Result<()> {
    until_answered("127.0.0.1:15021", "/healthz/ready", Duration::from_mins(1)).await
}

/// Where the application answers its probes.
struct Application {
    address: String,
    probers: HashMap<String, Value>,
}

async fn probe(
    State(application): State<Arc<Application>>,
    Path((container, probe)): Path<(String, String)>,
) -> Result<(), (StatusCode, String)> {
    let url = format!("/app-health/{container}/{probe}");
    let failed = |error: anyhow::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"));
    application.ask(&url).await.map_err(failed)
}

// === impl Application ===

impl Application {
    fn from_environment() -> Result<Self> {
        let probers = match std::env::var("ISTIO_KUBE_APP_PROBERS") {
            Ok(probers) => serde_json::from_str(&probers).context("ISTIO_KUBE_APP_PROBERS")?,
            Err(_) => HashMap::new(),
        };
        let address = std::env::var("INSTANCE_IP").unwrap_or_else(|_| "127.0.0.1".to_owned());
        Ok(Self { address, probers })
    }

    async fn ask(&self, url: &str) -> Result<()> {
        let prober = self
            .probers
            .get(url)
            .with_context(|| format!("no prober for {url}"))?;
        let address = |action: &Value| format!("{}:{}", self.address, action["port"]);
        if let Some(action) = prober.get("httpGet") {
            let path = action["path"].as_str().unwrap_or("/");
            super::get(&address(action), path).await
        } else if let Some(action) = prober.get("tcpSocket") {
            TcpStream::connect(address(action)).await?;
            Ok(())
        } else {
            bail!("{url}: gRPC is not spoken here")
        }
    }
}
