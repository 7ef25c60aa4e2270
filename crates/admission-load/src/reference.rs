//! The reference: a webhook that allows everything and changes nothing. What it costs is what any
//! webhook costs the API server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http_server::Server;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, certificate: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let chain = CertifiedKey::new(vec![made.cert.der().clone()], key);
    let router = Router::new().route("/allow", post(allow));
    let resolver = Arc::new(SingleCertAndKey::from(chain));
    let server = Server::bind(address, resolver, router, Duration::ZERO).await?;
    std::fs::write(certificate, made.cert.pem())
        .with_context(|| format!("writing {}", certificate.display()))?;
    server.run(CancellationToken::new()).await.map_err(Into::into)
}

async fn allow(body: Bytes) -> Response {
    // It reads the request as a webhook does.
    let Ok(review) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    Json(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": true },
    }))
    .into_response()
}
