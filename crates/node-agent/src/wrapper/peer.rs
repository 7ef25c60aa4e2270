/*!
A process that connected to a volume's socket: who it is, what it asks, and what it is answered.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use exec_wrapper::protocol::{Answer, MAX_LINE, MAX_REQUEST, Request};
use rootfs::Process;
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tracing::Span;
use tracing::field::Empty;

use crate::filesystem::Filesystems;
use crate::instance::{Instance, pod};
use crate::node::{Container, Hooks, Host, Node, cgroup};
use crate::volumes::{Users, Volume};

/// How long a peer may take for its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The connection to a process that may use the volume.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    process: Process,
    users: Users,
    container_id: String,
}

/// A process that may use the volume, with the instance that the volume is of.
#[derive(Debug)]
pub(super) struct Peer {
    stream: BufReader<UnixStream>,
    /// The reason for waiting that the agent sent last.
    explained: Option<String>,
    pub(super) process: Arc<Process>,
    /// What has to be repeated of the hooks of its container.
    pub(super) hooks: Hooks,
    /// The user namespace of its pod.
    pub(super) users: Users,
    pub(super) container_id: String,
    pub(super) volume: Arc<Volume>,
    pub(super) instance: Arc<Instance>,
}

/// Why a peer's container is not served, or not yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContainerError {
    /// Others in the pod, such as a debug container, have another root to show for the image's.
    #[error("container {found} is not {expected}, which the volume is for")]
    OtherContainer { found: String, expected: String },
    /// It would start without what they do, and nothing would say so.
    #[error(
        "the container runtime does not report the hooks of container {container}{}, so what they do for its device \
         {device} cannot be carried over; use a runtime that reports them (containerd or CRI-O with runc, crun or \
         youki), or remove the device from spec.template",
        .class.as_ref().map(|class| format!(" (runtime class {class})")).unwrap_or_default()
    )]
    UnseenHooks {
        container: String,
        class: Option<String>,
        device: String,
    },
    /// It may be known later.
    #[error(transparent)]
    Unknown(#[from] anyhow::Error),
}

// === impl Connection ===

impl Connection {
    /// Checks who connected. `None` if the peer was refused.
    pub(super) async fn accept(node: &Node, volume: &Volume, stream: UnixStream) -> Result<Option<Self>> {
        // First of all, while the peer can hardly have ended: who it is.
        let host = &node.host;
        let process = Process::of_peer(&stream).context("identify the peer")?;
        let mut stream = BufReader::with_capacity(MAX_LINE, stream);
        let cgroup = process.cgroup(&host.proc)?;
        let Some(container_id) = cgroup::container_of(&cgroup, &volume.record.pod.uid) else {
            if let Some(left_out) = volume.limits.log_lines.next() {
                let pid = process.id();
                tracing::warn!(pod = %volume.record.pod, pid, left_out, "a process of another pod connected");
            }
            let refusal = Answer::Error("this volume belongs to another pod".to_owned());
            send(&mut stream, &refusal).await?;
            return Ok(None);
        };
        let Some(users) = volume.users_of(&node.cri, host, &process).await? else {
            let message = "processes with their own user namespace are not served".to_owned();
            send(&mut stream, &Answer::Error(message)).await?;
            return Ok(None);
        };
        Ok(Some(Self {
            stream,
            process,
            users,
            container_id,
        }))
    }

    /// Reads what the peer asks for. `None` if the request was refused.
    pub(super) async fn request(&mut self) -> Result<Option<Request>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(MAX_REQUEST as u64);
        let request = limited.read_until(b'\n', &mut line);
        tokio::time::timeout(REQUEST_TIME, request)
            .await
            .context("no request")?
            .context("read the request")?;
        let line = line.strip_suffix(b"\n").context("the request has no end")?;
        match Request::parse(&String::from_utf8_lossy(line)) {
            Ok(request) => Ok(Some(request)),
            Err(error) => {
                self.send(&Answer::Error(error.to_string())).await?;
                Ok(None)
            }
        }
    }

    /// Sends an answer.
    pub(super) async fn send(&mut self, answer: &Answer) -> Result<()> {
        send(&mut self.stream, answer).await
    }

    /// Ends when the peer hangs up. What it sends meanwhile does not matter.
    pub(super) async fn closed(&mut self) {
        closed(&mut self.stream).await;
    }

    pub(super) fn into_peer(self, volume: Arc<Volume>, instance: Arc<Instance>) -> Peer {
        Peer {
            stream: self.stream,
            explained: None,
            process: Arc::new(self.process),
            hooks: Hooks::default(),
            users: self.users,
            container_id: self.container_id,
            volume,
            instance,
        }
    }
}

// === impl Peer ===

impl Peer {
    /// A peer that is this process itself.
    #[cfg(test)]
    pub(super) fn of_test(stream: UnixStream, volume: Arc<Volume>, instance: Arc<Instance>) -> Self {
        let connection = Connection {
            process: Process::of_peer(&stream).unwrap(),
            stream: BufReader::new(stream),
            users: Users::Node,
            container_id: "c1".to_owned(),
        };
        connection.into_peer(volume, instance)
    }

    /// Sends an answer.
    pub(super) async fn send(&mut self, answer: &Answer) -> Result<()> {
        send(&mut self.stream, answer).await
    }

    /// Sends a part of an answer.
    pub(super) async fn send_data(&mut self, data: &[u8]) -> Result<()> {
        send_bytes(&mut self.stream, data).await
    }

    /// Tells what is being waited for, if that is news. Returns whether it is.
    pub(super) async fn explain(&mut self, what: &str) -> Result<bool> {
        if self.explained.as_deref() == Some(what) {
            return Ok(false);
        }
        self.explained = Some(what.to_owned());
        let id = &self.volume.record.instance;
        self.send(&Answer::Wait(format!(
            "waiting for the filesystem of {id}: {what}"
        )))
        .await?;
        Ok(true)
    }

    /// Ends when the peer hangs up. What it sends meanwhile does not matter.
    pub(super) async fn closed(&mut self) {
        closed(&mut self.stream).await;
    }

    /// The span of a step of the pod's start. It has no text of the pod.
    pub(super) fn step_span(&self, step: &'static str) -> Span {
        let (pod, instance) = (&self.volume.record.pod, &self.instance.id);
        tracing::info_span!(
            target: telemetry::SPANS, "step of a start", otel.name = step, otel.status_code = Empty,
            namespace = pod.namespace, pod = pod.name, instance = instance.name, result = Empty,
        )
    }

    /// The peer's container, as the runtime knows it, if it is the one that the volume is for. From
    /// here on the peer's process is the one that the runtime started as that container, not the
    /// process that asks.
    pub(super) async fn main_container(
        &mut self,
        filesystems: &Filesystems,
    ) -> Result<Container, ContainerError> {
        let node = &filesystems.node;
        let container = node.cri.container(&self.container_id).await;
        let container = container.map_err(anyhow::Error::from)?;
        let expected = self.expected_container(filesystems).await?;
        if container.name != expected {
            let found = container.name;
            return Err(ContainerError::OtherContainer { found, expected });
        }
        if let Some(pid) = container.first {
            self.process = Arc::new(self.first_process(&node.host, pid)?);
        }
        self.hooks = container.hooks.clone().unwrap_or_default();
        self.volume.set_identified();
        Ok(container)
    }

    /// Name of the container that the volume is for.
    async fn expected_container(&self, filesystems: &Filesystems) -> Result<String> {
        let record = &self.volume.record;
        if let Some(container) = &record.container {
            return Ok(container.clone());
        }
        // Records of earlier versions do not have it.
        let node = &filesystems.node.name;
        Ok(pod::owned(&filesystems.client, &record.pod, node)
            .await?
            .container)
    }

    fn first_process(&self, host: &Host, pid: i32) -> Result<Process> {
        let pid = Pid::from_raw(pid).context("the container runtime reports no process")?;
        let first = Process::open(pid).context("the first process of the container")?;
        // Another process may have the number by now.
        let cgroup = first.cgroup(&host.proc)?;
        let found = cgroup::container_of(&cgroup, &self.volume.record.pod.uid);
        ensure!(
            found.as_ref() == Some(&self.container_id),
            "the first process of container {} has ended",
            self.container_id
        );
        Ok(first)
    }
}

async fn send(stream: &mut BufReader<UnixStream>, answer: &Answer) -> Result<()> {
    send_bytes(stream, answer.to_line().as_bytes()).await
}

async fn send_bytes(stream: &mut BufReader<UnixStream>, bytes: &[u8]) -> Result<()> {
    tokio::time::timeout(ANSWER_TIME, stream.write_all(bytes))
        .await
        .context("the peer does not read the answer")?
        .context("the peer is gone")
}

async fn closed(stream: &mut BufReader<UnixStream>) {
    let mut buffer = [0; 64];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
