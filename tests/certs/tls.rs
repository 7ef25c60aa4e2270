//! A TLS client that trusts a PEM bundle at the test's own time, as an API server trusts
//! `caBundle`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock;

pub(crate) const SERVER_NAME: &str = "webhook.operators.svc";

#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            clock::now().duration_since(std::time::UNIX_EPOCH).ok()?,
        ))
    }
}

/// A finished handshake; fails as an API server's would.
pub(crate) async fn connect(
    address: SocketAddr,
    bundle: &str,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    secure(TcpStream::connect(address).await?, bundle, alpn).await
}

/// As [`connect`], on a connection that is there.
pub(crate) async fn secure(
    stream: TcpStream,
    bundle: &str,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    // Every handshake is a whole one: what is tested is the certificate.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(SERVER_NAME).unwrap(), stream)
        .await
}

/// The certificate that a server presents.
pub(crate) async fn presented(address: SocketAddr, bundle: &str) -> Vec<u8> {
    let stream = connect(address, bundle, "http/1.1").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// One request on a connection of its own.
pub(crate) async fn get(
    address: SocketAddr,
    bundle: &str,
    path: &str,
) -> Result<(Response<()>, String), String> {
    ask(&mut http1(address, bundle).await?, path).await
}

/// An HTTP/1.1 connection.
pub(crate) async fn http1(
    address: SocketAddr,
    bundle: &str,
) -> Result<hyper::client::conn::http1::SendRequest<Body>, String> {
    let stream = connect(address, bundle, "http/1.1")
        .await
        .map_err(|e| e.to_string())?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request on an HTTP/1.1 connection.
pub(crate) async fn ask(
    connection: &mut hyper::client::conn::http1::SendRequest<Body>,
    path: &str,
) -> Result<(Response<()>, String), String> {
    let request = Request::get(path)
        .header("host", SERVER_NAME)
        .body(Body::empty())
        .unwrap();
    read(
        connection
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?,
    )
    .await
}

/// An HTTP/2 connection.
pub(crate) async fn http2(
    address: SocketAddr,
    bundle: &str,
) -> hyper::client::conn::http2::SendRequest<Body> {
    let stream = connect(address, bundle, "h2").await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn read(response: Response<Incoming>) -> Result<(Response<()>, String), String> {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((
        Response::from_parts(parts, ()),
        String::from_utf8_lossy(&bytes).into_owned(),
    ))
}
