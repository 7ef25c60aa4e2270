/*!
A router behind TLS (HTTP/1.1 and HTTP/2) or in the clear (HTTP/1.1), with a bound on everything
that a client can drag out, and an end that no request notices.

At shutdown the server asks its clients to end their connections (`Connection: close`, GOAWAY). It
still accepts new connections for a while, because the nodes of the cluster learn with a delay that
this replica is leaving.
*/

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::connections::{Connections, Place};

/// A handshake is two round trips; an API server gives the whole call three seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the head of a request may take, and how long an HTTP/1 connection may be idle. Longer
/// than the 90 s after which an API server gives an idle connection up (`IdleConnTimeout` of Go's
/// transport): who closes first risks that the other one is just sending a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(100);
/// How often, and how patiently, an HTTP/2 peer is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time. API servers use one or two each; the rest is room for strangers to waste,
/// and where there is none left, the one that has waited longest is closed.
const CONNECTIONS: usize = 512;
/// Connections at a time in the clear: a kubelet, a scraper or two, and room.
const PLAIN_CONNECTIONS: usize = 64;
/// How long the head of a request may take in the clear, and how long a connection may be idle.
/// Kubelets and scrapers send theirs at once.
const PLAIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 250;
/// How long new connections are taken after shutdown began.
const LINGER: Duration = Duration::from_secs(5);
/// How long the server keeps an idle HTTP/1 connection after shutdown began. HTTP/1 has no message
/// that asks a client to end an idle connection. A request that is sent while the server closes the
/// connection fails, because Go's client does not repeat a POST. API servers speak HTTP/1.1 to
/// webhooks and reuse the connection that they used last, so they will hardly use a connection that
/// was idle for this long.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after accept failed, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server for one router.
pub struct Server {
    listener: TcpListener,
    security: Security,
    router: Router,
    drain: Duration,
    linger: Duration,
    limit: usize,
}

/// What lies between TCP and HTTP.
#[derive(Clone)]
enum Security {
    Tls(TlsAcceptor),
    None,
}

// === impl Server ===

impl Server {
    /// Listens on `address` with TLS; connections wait until [`Server::run`]. `drain` is the time
    /// from shutdown to the end of the last connection.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        certificates: Arc<dyn ResolvesServerCert>,
        router: Router,
        drain: Duration,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self {
            listener,
            security: Security::Tls(acceptor),
            router,
            drain,
            linger: LINGER.min(drain),
            limit: CONNECTIONS,
        })
    }

    /// Listens on `address` in the clear, for health and for public pages. It ends with the
    /// process: nothing is drained.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind_plain(address: SocketAddr, router: Router) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            security: Security::None,
            router,
            drain: Duration::ZERO,
            linger: Duration::ZERO,
            limit: PLAIN_CONNECTIONS,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As `TcpListener::local_addr`.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes new connections for this long after shutdown began, instead of five seconds.
    #[must_use]
    pub fn with_linger(self, linger: Duration) -> Self {
        Self { linger, ..self }
    }

    /// Keeps so many connections at a time at most, instead of 512 (64 in the clear).
    #[must_use]
    pub fn with_connections(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Serves until `shutdown` and then until every connection has ended, but no longer than the
    /// drain time.
    ///
    /// # Errors
    /// None; the type is that of a watched task.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let mut connections = Connections::new(self.limit);
        let mut last_call = pin!(async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.linger).await;
        });
        loop {
            tokio::select! {
                () = &mut last_call => break,
                accepted = self.listener.accept() => {
                    match accepted {
                        Ok((stream, peer)) => {
                            let (security, router, shutdown) = (self.security.clone(), self.router.clone(), shutdown.clone());
                            connections.add(|place| async move {
                                if let Err(error) = secure(stream, security, router, shutdown, place).await {
                                    tracing::debug!(%peer, %error, "a connection ended early");
                                }
                            });
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept connections");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
        drop(self.listener);
        if tokio::time::timeout(self.drain.saturating_sub(self.linger), connections.ended())
            .await
            .is_err()
        {
            tracing::warn!("connections were cut at the end of the drain time");
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    #[error("HTTP: {0}")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
}

async fn secure(
    stream: TcpStream,
    security: Security,
    router: Router,
    shutdown: CancellationToken,
    place: Place,
) -> Result<(), ConnectionError> {
    // Small answers must not wait for more to send; without this they only come later.
    let _ = stream.set_nodelay(true);
    let Security::Tls(acceptor) = security else {
        return serve(stream, false, PLAIN_HEADER_TIMEOUT, router, shutdown, place).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = handshake
        .await
        .map_err(|_| ConnectionError::Slow)?
        .map_err(ConnectionError::Handshake)?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve(stream, is_http2, HEADER_TIMEOUT, router, shutdown, place).await
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    is_http2: bool,
    header_timeout: Duration,
    router: Router,
    shutdown: CancellationToken,
    place: Place,
) -> Result<(), ConnectionError> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS);
    // The handshake has said which it is; guessing from the first bytes could not be ended
    // gracefully.
    let builder = if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };

    let used = CancellationToken::new();
    let place = Arc::new(place);
    let (mark, ending) = (used.clone(), shutdown.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        mark.cancel();
        place.touch();
        let (router, ending, place) = (router.clone(), ending.clone(), place.clone());
        async move {
            let response = router.oneshot(request.map(Body::new)).await;
            place.touch();
            let mut response = response.map_err(|never: Infallible| match never {})?;
            if !is_http2 && ending.is_cancelled() {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // A connection that was opened while we are leaving gets its first request answered. HTTP/2 can
    // say that it ends (GOAWAY); HTTP/1 says so with the answer to its next request.
    let leaving = async {
        shutdown.cancelled().await;
        used.cancelled().await;
        if !is_http2 {
            tokio::time::sleep(IDLE).await;
        }
    };
    tokio::select! {
        result = connection.as_mut() => return result.map_err(ConnectionError::Http),
        () = leaving => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(ConnectionError::Http)
}
