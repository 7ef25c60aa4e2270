//! The server: protocols, slow clients, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http::{Request, Version};
use http_server::Server;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use webhook_certs::Resolver;
use webhook_certs::authority::Authority;
use webhook_certs::leaf::Leaf;

use crate::tls;

struct Running {
    address: SocketAddr,
    bundle: String,
    shutdown: CancellationToken,
    /// `/slow` has begun.
    begun: Arc<Notify>,
    /// Lets `/slow` answer.
    release: Arc<Notify>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(linger: Duration) -> Running {
    start_with(linger, |server| server).await
}

async fn start_with(linger: Duration, change: impl FnOnce(Server) -> Server) -> Running {
    let day = Duration::from_hours(24);
    let authority = Authority::generate(SystemTime::now(), day).unwrap();
    let resolver = Resolver::new(SystemTime::now);
    resolver.set(Leaf::issue(&authority, &[tls::SERVER_NAME.to_owned()], SystemTime::now(), day).unwrap());
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, release) = (begun.clone(), release.clone());
        get(move || async move {
            begun.notify_one();
            release.notified().await;
            "slow"
        })
    };
    let router = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/slow", slow)
        .route("/body", post(|body: Bytes| async move { body }));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, Arc::new(resolver), router, Duration::from_secs(20))
        .await
        .unwrap();
    let address = server.local_address().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(change(server).with_linger(linger).run(shutdown.clone()));
    Running {
        address,
        bundle: authority.certificate().pem().to_owned(),
        shutdown,
        begun,
        release,
        task,
    }
}

#[tokio::test]
async fn http_1_and_2_are_spoken() {
    let server = start(Duration::ZERO).await;
    let (response, body) = tls::get(server.address, &server.bundle, "/").await.unwrap();
    assert_eq!((response.version(), body.as_str()), (Version::HTTP_11, "ok"));
    let mut sender = tls::http2(server.address, &server.bundle).await;
    let request = Request::get(format!("https://{}/", tls::SERVER_NAME))
        .body(Body::empty())
        .unwrap();
    let (response, body) = tls::read(sender.send_request(request).await.unwrap())
        .await
        .unwrap();
    assert_eq!((response.version(), body.as_str()), (Version::HTTP_2, "ok"));
}

#[tokio::test]
async fn f10_clients_that_never_finish_a_handshake_do_not_starve_others_and_are_dropped() {
    let server = start(Duration::ZERO).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    silent[0].write_all(&[22]).await.unwrap();
    tls::get(server.address, &server.bundle, "/").await.unwrap();
    for mut stream in silent {
        // The server closes them; how long it takes is its own constant.
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
            .await
            .expect("still open");
    }
}

/// For each of these the server has patience: who is not done with the handshake, with the head of
/// a request, with its body, and who does not ask again.
#[tokio::test]
async fn f10_h24_more_slow_clients_than_there_is_room_for_do_not_keep_others_out() {
    let server = start_with(Duration::ZERO, |server| server.with_connections(16)).await;
    let mut clients = JoinSet::new();
    for kind in 0..64 {
        // Connected one after the other, so that a later client queues behind them.
        let stream = TcpStream::connect(server.address).await.unwrap();
        let bundle = server.bundle.clone();
        clients.spawn(async move {
            if kind % 4 == 0 {
                return trickle(stream, "\u{16}", "\u{3}").await;
            }
            let stream = tls::secure(stream, &bundle, "http/1.1").await?;
            match kind % 4 {
                1 => trickle(stream, "GET / HTTP/1.1\r\nhost: ", "x").await,
                2 => {
                    let head = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n";
                    trickle(stream, head, "x").await
                }
                _ => trickle(stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "").await,
            }
        });
    }
    for _ in 0..20 {
        let answer = tls::get(server.address, &server.bundle, "/");
        let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
        let (_, body) = answer.expect("others are kept out").unwrap();
        assert_eq!(body, "ok");
    }
    clients.abort_all();
}

/// Sends a beginning and then a little every second, until the server has enough.
async fn trickle(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    beginning: &str,
    more: &str,
) -> std::io::Result<()> {
    stream.write_all(beginning.as_bytes()).await?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(more.as_bytes()).await?;
    }
}

#[tokio::test]
async fn f3_requests_in_flight_are_answered_and_told_to_go_elsewhere() {
    let server = start(Duration::ZERO).await;
    let request = {
        let (address, bundle) = (server.address, server.bundle.clone());
        tokio::spawn(async move { tls::get(address, &bundle, "/slow").await })
    };
    let mut http2 = tls::http2(server.address, &server.bundle).await;
    server.begun.notified().await;
    let other = Request::get(format!("https://{}/slow", tls::SERVER_NAME))
        .body(Body::empty())
        .unwrap();
    let other = tokio::spawn(http2.send_request(other));
    server.begun.notified().await;

    server.shutdown.cancel();
    tokio::task::yield_now().await;
    server.release.notify_one();
    server.release.notify_one();
    while !request.is_finished() || !other.is_finished() {
        server.release.notify_one();
        tokio::task::yield_now().await;
    }
    let (response, body) = request.await.unwrap().unwrap();
    assert_eq!(
        (body.as_str(), response.headers()["connection"].to_str().unwrap()),
        ("slow", "close")
    );
    let (_, body) = tls::read(other.await.unwrap().unwrap()).await.unwrap();
    assert_eq!(body, "slow");
    server.task.await.unwrap().unwrap();
    TcpStream::connect(server.address)
        .await
        .expect_err("the server must not listen any more");
}

/// An API server keeps connections open and does not repeat a POST that met their closing: while
/// idle ones were closed at once, five rolling updates lost 3 of 2,095 calls ("broken pipe").
#[tokio::test]
async fn f3_an_idle_connection_is_told_to_end_and_not_cut() {
    let server = start(Duration::ZERO).await;
    let mut idle = tls::http1(server.address, &server.bundle).await.unwrap();
    tls::ask(&mut idle, "/").await.unwrap();
    server.shutdown.cancel();
    // When the port does not accept connections any more, the server has begun its shutdown.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let (response, body) = tls::ask(&mut idle, "/").await.unwrap();
    assert_eq!(
        (body.as_str(), response.headers()["connection"].to_str().unwrap()),
        ("ok", "close")
    );
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn f3_new_connections_are_served_while_the_cluster_does_not_know_yet() {
    let server = start(Duration::from_secs(1)).await;
    // Connected before, asked after: neither is lost.
    let mut early = tls::http2(server.address, &server.bundle).await;
    server.shutdown.cancel();
    let request = Request::get(format!("https://{}/", tls::SERVER_NAME))
        .body(Body::empty())
        .unwrap();
    tls::read(early.send_request(request).await.unwrap())
        .await
        .unwrap();
    for _ in 0..50 {
        let (response, body) = tls::get(server.address, &server.bundle, "/").await.unwrap();
        assert_eq!(
            (body.as_str(), response.headers()["connection"].to_str().unwrap()),
            ("ok", "close")
        );
    }
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn h24_who_speaks_no_tls_gets_nothing() {
    let server = start(Duration::ZERO).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"POST /mutate HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
}

/// In the clear, for health and metrics: a client that keeps connections open kept kubelets and
/// scrapers out.
#[tokio::test]
async fn i18_a_plain_server_makes_room_for_who_asks() {
    let router = Router::new().route("/", get(|| async { "ok" }));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind_plain(address, router)
        .await
        .unwrap()
        .with_connections(2);
    let address = server.local_address().unwrap();
    let task = tokio::spawn(server.run(CancellationToken::new()));
    let mut silent = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let mut asking = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    asking.write_all(request).await.unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let end = silent[0].read(&mut [0]).await;
    assert!(!matches!(end, Ok(1..)), "the one that waited longest was closed");
    task.abort();
}
