//! The programs that injected containers run. None of them redirects traffic or needs a privilege.

pub(crate) mod istio;
pub(crate) mod linkerd;
pub(crate) mod vault;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Pause between two looks at something that must become ready.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a router until the end of the process.
async fn serve(port: u16, router: Router) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("listening on {port}"))?;
    Ok(axum::serve(listener, router).await?)
}

/// Until SIGTERM. The first process of a container has no default handler.
pub(crate) async fn terminated() -> Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

/// Fetches a page; any status but 200 is an error.
async fn get(address: &str, path: &str) -> Result<()> {
    let mut connection = TcpStream::connect(address)
        .await
        .with_context(|| address.to_owned())?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{address}{path} answers {status:?}");
    Ok(())
}

/// Asks again and again until the page is there.
async fn until_answered(address: &str, path: &str, patience: Duration) -> Result<()> {
    let answered = async {
        while get(address, path).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    if tokio::time::timeout(patience, answered).await.is_err() {
        bail!("{address}{path} did not answer within {patience:?}");
    }
    Ok(())
}
