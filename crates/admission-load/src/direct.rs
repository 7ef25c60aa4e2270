//! Reviews that are sent to the webhook alone, over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use webhook_fixtures::creation;

use crate::cluster::{CONTROLLER, OURS, SERVICE};
use crate::quantiles::{Measured, closed_loop};

/// The webhook, and the reviews for it.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    connector: TlsConnector,
    bodies: Arc<[Bytes]>,
}

type Connection = SendRequest<Full<Bytes>>;

// === impl Target ===

impl Target {
    /// Reviews of the creations of these pods.
    pub(crate) fn new(address: SocketAddr, authority: &[u8], pods: &[Value]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            roots.add(certificate.context("the caBundle")?)?;
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let bodies = pods.iter().map(|pod| {
            let mut request = creation("Pod", "", pod);
            request["name"] = pod["metadata"]["name"].clone();
            request["namespace"] = json!(OURS);
            request["userInfo"]["username"] = json!(CONTROLLER);
            let review = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
            });
            Bytes::from(review.to_string())
        });
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            bodies: bodies.collect(),
        })
    }

    /// Sends so many reviews on so many connections at a time: each connection is kept alive, or
    /// serves one review.
    pub(crate) async fn load(
        &self,
        connections: usize,
        reviews: usize,
        kept_alive: bool,
    ) -> Result<Measured> {
        let open = try_join_all((0..connections).map(|_| async {
            let connection = if kept_alive {
                Some(self.connect().await?)
            } else {
                None
            };
            anyhow::Ok(connection)
        }));
        let open = open.await?;
        let target = self.clone();
        let send = move |number: usize, connection: Option<Connection>| {
            let target = target.clone();
            async move {
                let body = target.bodies[number % target.bodies.len()].clone();
                if let Some(mut connection) = connection {
                    let result = target.review(&mut connection, body).await;
                    return (Some(connection), result);
                }
                let result = async {
                    let mut connection = target.connect().await?;
                    target.review(&mut connection, body).await
                };
                (None, result.await)
            }
        };
        Ok(closed_loop(open, reviews, send).await?.measured())
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVICE)?;
        let stream = self
            .connector
            .connect(name, stream)
            .await
            .context("the handshake")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn review(&self, connection: &mut Connection, body: Bytes) -> Result<()> {
        let request = Request::post("/mutate")
            .header("host", SERVICE)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "status {status}");
        let answer: Value = serde_json::from_slice(&body).context("the answer")?;
        let response = &answer["response"];
        ensure!(
            response["allowed"] == true && response["patch"].is_string(),
            "not rewritten: {response}"
        );
        Ok(())
    }
}
