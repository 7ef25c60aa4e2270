/*!
The sockets of the node's container runtimes, and which of them has a container.

A node may have several: Docker's containerd next to that of k3s, or the CRI-O of an earlier setup.
The first that answers may not be the kubelet's. So the agent asks all of them for the container at
hand and keeps the one that knows it, until that one stops knowing or answering.
*/

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rootfs::root::{Problem, RootError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{CriError, Host};

/// Where runtimes listen by default.
const SOCKETS: [&str; 7] = [
    // containerd, as most distributions and Docker install it.
    "/run/containerd/containerd.sock",
    // CRI-O. On most nodes the second path is the first one, by a link.
    "/run/crio/crio.sock",
    "/var/run/crio/crio.sock",
    // The containerd of k3s and RKE2.
    "/run/k3s/containerd/containerd.sock",
    // The containerd of MicroK8s.
    "/var/snap/microk8s/common/run/containerd.sock",
    // The containerd of k0s.
    "/run/k0s/containerd.sock",
    // Docker Engine.
    "/run/cri-dockerd.sock",
];
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The runtimes of this node.
#[derive(Clone, Debug)]
pub(super) struct Runtimes {
    candidates: Arc<[Runtime]>,
    /// The one that knew the container that was asked for last.
    chosen: Arc<Mutex<Option<Runtime>>>,
    timeout: Duration,
}

/// One runtime.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    host: Arc<Host>,
    /// Its socket on the node.
    socket: PathBuf,
    channel: Channel,
}

/// Why a runtime gave no answer.
enum NoAnswer {
    /// It has no socket at the path.
    NoSocket,
    /// It is not reachable, does not answer, or does not know the container.
    Said(String),
    /// It knows the container, and the answer cannot be used.
    Unusable(CriError),
}

// === impl Runtimes ===

impl Runtimes {
    /// The runtime at this socket of the node, or those at the usual ones.
    pub(super) fn new(host: &Arc<Host>, socket: Option<PathBuf>) -> Self {
        let sockets = match socket {
            Some(socket) => vec![socket],
            None => SOCKETS.iter().map(PathBuf::from).collect(),
        };
        Self::with_timeout(host, sockets, TIMEOUT)
    }

    fn with_timeout(host: &Arc<Host>, sockets: Vec<PathBuf>, timeout: Duration) -> Self {
        let runtimes = sockets
            .into_iter()
            .map(|socket| Runtime::new(host, socket, timeout));
        Self {
            candidates: runtimes.collect(),
            chosen: Arc::default(),
            timeout,
        }
    }

    /// Asks the runtimes for `what` until one knows it: the chosen one first, then all. `call`
    /// returns `None` or [`Code::NotFound`] if the runtime does not know it.
    pub(super) async fn ask<T, F>(
        &self,
        what: &str,
        call: impl Fn(Channel) -> F,
    ) -> Result<(Runtime, T), CriError>
    where
        F: Future<Output = Result<Option<T>, CriError>>,
    {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(runtime) = chosen {
            match runtime.ask(&call, self.timeout).await {
                Ok(answer) => return Ok((runtime, answer)),
                Err(NoAnswer::Unusable(error)) => return Err(error),
                Err(NoAnswer::NoSocket | NoAnswer::Said(_)) => self.choose(None),
            }
        }
        let call = &call;
        let ask = async |(index, runtime): (usize, &Runtime)| {
            (index, runtime.ask(call, self.timeout).await, runtime.clone())
        };
        let mut asked: FuturesUnordered<_> = self.candidates.iter().enumerate().map(ask).collect();
        let mut failed = Vec::new();
        while let Some((index, answer, runtime)) = asked.next().await {
            match answer {
                Ok(answer) => {
                    tracing::info!(socket = %runtime.socket.display(), "found the container runtime");
                    self.choose(Some(runtime.clone()));
                    return Ok((runtime, answer));
                }
                Err(NoAnswer::Unusable(error)) => return Err(error),
                Err(NoAnswer::NoSocket) => failed.push((index, runtime, None)),
                Err(NoAnswer::Said(said)) => failed.push((index, runtime, Some(said))),
            }
        }
        failed.sort_by_key(|(index, ..)| *index);
        Err(CriError::Unknown {
            what: what.to_owned(),
            answers: answers(
                failed
                    .iter()
                    .map(|(_, runtime, said)| (&*runtime.socket, said.as_deref())),
            ),
        })
    }

    /// Asks every runtime that has a socket. Returns the answers of those that answer.
    ///
    /// # Errors
    /// When none answers.
    pub(super) async fn ask_all<T, F>(
        &self,
        what: &str,
        call: impl Fn(Channel) -> F,
    ) -> Result<Vec<T>, CriError>
    where
        F: Future<Output = Result<Option<T>, CriError>>,
    {
        let asked = self
            .candidates
            .iter()
            .map(|runtime| runtime.ask(&call, self.timeout));
        let asked = futures::future::join_all(asked).await;
        let (mut answered, mut failed) = (Vec::new(), Vec::new());
        for (runtime, answer) in self.candidates.iter().zip(asked) {
            match answer {
                Ok(answer) => answered.push(answer),
                Err(NoAnswer::Unusable(error)) => return Err(error),
                Err(NoAnswer::NoSocket) => failed.push((&*runtime.socket, None)),
                Err(NoAnswer::Said(said)) => failed.push((&*runtime.socket, Some(said))),
            }
        }
        if answered.is_empty() {
            return Err(CriError::Unknown {
                what: what.to_owned(),
                answers: answers(failed.iter().map(|(socket, said)| (*socket, said.as_deref()))),
            });
        }
        Ok(answered)
    }

    fn choose(&self, runtime: Option<Runtime>) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }
}

/// What each socket answered: those without a socket last, as they matter least.
fn answers<'a>(failed: impl Iterator<Item = (&'a Path, Option<&'a str>)>) -> String {
    let (mut said, mut missing) = (Vec::new(), Vec::new());
    for (socket, answer) in failed {
        match answer {
            Some(answer) => said.push(format!("{}: {answer}", socket.display())),
            None => missing.push(socket.display().to_string()),
        }
    }
    if !missing.is_empty() {
        said.push(format!("no socket at {}", missing.join(", ")));
    }
    said.join("; ")
}

// === impl Runtime ===

impl Runtime {
    /// Connects when it is used, and again after the runtime has restarted.
    fn new(host: &Arc<Host>, socket: PathBuf, timeout: Duration) -> Self {
        // `ask` ends first and says what happened; the endpoint bounds other services' calls.
        let endpoint = Endpoint::from_static("http://runtime")
            .timeout(timeout * 2)
            .connect_timeout(timeout * 2);
        let connector = {
            let (host, socket) = (Arc::clone(host), socket.clone());
            tower::service_fn(move |_: Uri| {
                let (host, socket) = (Arc::clone(&host), socket.clone());
                async move { connect(&host, &socket).await.map(TokioIo::new) }
            })
        };
        Self {
            host: Arc::clone(host),
            socket,
            channel: endpoint.connect_with_connector_lazy(connector),
        }
    }

    /// The connection, for other services of the runtime that has a container.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn ask<T, F>(&self, call: impl Fn(Channel) -> F, timeout: Duration) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<Option<T>, CriError>>,
    {
        match self.host.root.open(&self.socket, OFlags::PATH) {
            Ok(_) => {}
            Err(error) if is_missing(&error) => return Err(NoAnswer::NoSocket),
            Err(error) => return Err(NoAnswer::Said(error.problem.to_string())),
        }
        let asked = async {
            match call(self.channel()).await {
                // A connection to the runtime before its restart shows that only when it is used.
                Err(CriError::Call(status)) if is_broken(&status) => call(self.channel()).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(timeout, asked).await;
        match answer {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(NoAnswer::Said("does not know it".to_owned())),
            Ok(Err(CriError::Call(status))) => Err(NoAnswer::Said(said(&status))),
            Ok(Err(error)) => Err(NoAnswer::Unusable(error)),
            Err(_) => Err(NoAnswer::Said(format!(
                "no answer within {} s",
                timeout.as_secs_f32()
            ))),
        }
    }
}

fn is_missing(error: &RootError) -> bool {
    matches!(error.problem, Problem::System(Errno::NOENT | Errno::NOTDIR))
}

/// Whether the connection failed, not the call.
fn is_broken(status: &tonic::Status) -> bool {
    let source = std::error::Error::source(status);
    source.is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>)
}

/// What a runtime answered, in one line.
fn said(status: &tonic::Status) -> String {
    match status.code() {
        Code::NotFound => "does not know it".to_owned(),
        Code::Unimplemented => "does not serve CRI v1".to_owned(),
        _ => {
            let mut said = status.message().to_owned();
            let mut source = std::error::Error::source(status);
            while let Some(error) = source {
                let next = error.to_string();
                if !said.ends_with(&next) {
                    said = format!("{said}: {next}");
                }
                source = error.source();
            }
            said
        }
    }
}

async fn connect(host: &Host, socket: &Path) -> std::io::Result<UnixStream> {
    let socket = host
        .root
        .open(socket, OFlags::PATH)
        .map_err(std::io::Error::other)?;
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
