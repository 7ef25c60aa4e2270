//! The webhook server: HTTPS on 8443, with the certificate that is mounted at `/tls`. The path
//! names the injector, and, for a slow one, the milliseconds that it takes: `/kyverno/2000`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::Path;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use injectors::Injector;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::programs::terminated;

const PORT: u16 = 8443;
const CERTIFICATE: &str = "/tls/tls.crt";
const KEY: &str = "/tls/tls.key";

/// `injectors webhook`.
pub(crate) async fn run() -> Result<()> {
    let chain = CertificateDer::pem_file_iter(CERTIFICATE)
        .and_then(Iterator::collect)
        .context(CERTIFICATE)?;
    let key = PrivateKeyDer::from_pem_file(KEY).context(KEY)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let at_once = async |Path(name): Path<String>, review| review_after(&name, 0, review).await;
    let slowly =
        async |Path((name, delay)): Path<(String, u64)>, review| review_after(&name, delay, review).await;
    let router = Router::new()
        .route("/{injector}", post(at_once))
        .route("/{injector}/{delay}", post(slowly));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    println!("listening on {PORT}");
    let accept = async {
        loop {
            let (connection, _) = listener.accept().await?;
            tokio::spawn(serve(acceptor.clone(), connection, router.clone()));
        }
    };
    tokio::select! {
        result = accept => result,
        result = terminated() => result,
    }
}

async fn serve(acceptor: TlsAcceptor, connection: TcpStream, router: Router) {
    let served = async {
        let connection = TokioIo::new(acceptor.accept(connection).await?);
        let service = TowerToHyperService::new(router);
        let server = auto::Builder::new(TokioExecutor::new());
        let served = server.serve_connection(connection, service).await;
        served.map_err(|error| anyhow::anyhow!("{error}"))
    };
    if let Err(error) = served.await {
        eprintln!("connection: {error:#}");
    }
}

async fn review_after(name: &str, delay: u64, Json(review): Json<Value>) -> Result<Json<Value>, String> {
    let injector: Injector = name.parse()?;
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let request = &review["request"];
    let mut pod = request["object"].clone();
    // The name is the request's until the pod is stored; Istio writes the namespace into the pod,
    // too.
    pod["metadata"]["namespace"] = request["namespace"].clone();
    let answer = match injector.patch(&pod) {
        Ok(patch) => json!({
            "uid": request["uid"], "allowed": true,
            "patchType": "JSONPatch", "patch": STANDARD.encode(json!(patch).to_string()),
        }),
        Err(message) => json!({
            "uid": request["uid"], "allowed": false, "status": { "message": message },
        }),
    };
    println!(
        "{injector}: {} allowed: {}",
        pod["metadata"]["name"], answer["allowed"]
    );
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    Ok(Json(
        json!({ "apiVersion": version, "kind": kind, "response": answer }),
    ))
}
