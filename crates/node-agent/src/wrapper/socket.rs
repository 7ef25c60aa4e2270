/*!
The socket of a volume: who connects is checked, then its request is carried out.

Everything here is bounded: connections of a volume, how fast they may come (see
`pace`), the length of a line, the time for the request to arrive. What may last is
only the waiting, and that ends when the peer, the volume or the agent does.
*/

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use exec_wrapper::protocol::{Answer, MAX_LINE, Verb};
use rootfs::Process;
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::agent::Agent;
use crate::csi::authorize;
use crate::instance::state::Instance;
use crate::node::cgroup;
use crate::node::cri::Container;
use crate::volumes::Volume;
use crate::volumes::record::Role;
use crate::wrapper::consumer;
use crate::wrapper::provider;

/// Most connections of one volume at the same time. Probes and hooks that wait take one each.
const CONNECTIONS: usize = 64;
/// How long a peer may take for its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A conversation with a wrapper that was checked.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: BufReader<UnixStream>,
    said: Option<String>,
    pub(crate) process: Arc<Process>,
    pub(crate) container_id: String,
    pub(crate) volume: Arc<Volume>,
    pub(crate) instance: Arc<Instance>,
}

/// Serves a volume until it is unpublished.
pub(crate) fn spawn(agent: Arc<Agent>, volume: Arc<Volume>, listener: StdListener) -> Result<()> {
    let listener = UnixListener::from_std(listener).context("serve the socket")?;
    volume.set_served();
    tokio::spawn(async move {
        let unpublished = volume.unpublished.clone();
        unpublished
            .run_until_cancelled(accept(agent, volume, listener))
            .await;
    });
    Ok(())
}

async fn accept(agent: Arc<Agent>, volume: Arc<Volume>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        // Those that come faster wait in the socket's queue.
        volume.paces.connections.pass().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; the connection stays in the queue.
                tracing::warn!(pod = %volume.record.pod, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (agent, volume) = (Arc::clone(&agent), Arc::clone(&volume));
        tokio::spawn(async move {
            let _slot = slot;
            let unpublished = volume.unpublished.clone();
            let served = unpublished
                .run_until_cancelled(serve(&agent, Arc::clone(&volume), stream))
                .await;
            if let Some(Err(error)) = served {
                tracing::debug!(pod = %volume.record.pod, "conversation with a wrapper: {error:#}");
            }
        });
    }
}

async fn serve(agent: &Agent, volume: Arc<Volume>, stream: UnixStream) -> Result<()> {
    // First of all, while the peer can hardly have ended: who it is.
    let process = Process::of_peer(&stream).context("identify the peer")?;
    let mut stream = BufReader::with_capacity(MAX_LINE, stream);
    let cgroup = process.cgroup(&agent.host.proc)?;
    let Some(container_id) = cgroup::container_of(&cgroup, &volume.record.pod.uid) else {
        if let Some(left_out) = volume.paces.lines.next() {
            let pid = process.id();
            tracing::warn!(pod = %volume.record.pod, pid, left_out, "a process of another pod connected");
        }
        return say(
            &mut stream,
            &Answer::Error("this volume belongs to another pod".to_owned()),
        )
        .await;
    };
    if !process.shares_user_namespace(&agent.host.proc)? {
        let message = "processes in a user namespace of their own are not served".to_owned();
        return say(&mut stream, &Answer::Error(message)).await;
    }
    let mut line = Vec::new();
    let mut limited = (&mut stream).take(MAX_LINE as u64);
    let request = limited.read_until(b'\n', &mut line);
    tokio::time::timeout(REQUEST_TIME, request)
        .await
        .context("no request")?
        .context("read the request")?;
    let line = line.strip_suffix(b"\n").context("the request has no end")?;
    let verb = match Verb::parse(&String::from_utf8_lossy(line)) {
        Ok(verb) => verb,
        Err(error) => return say(&mut stream, &Answer::Error(error.to_string())).await,
    };
    let Some(instance) = known(agent, &volume, &mut stream).await? else {
        return Ok(());
    };
    let mut peer = Peer {
        stream,
        said: None,
        process: Arc::new(process),
        container_id,
        volume,
        instance,
    };
    if verb != Verb::Hook {
        let volume = Arc::clone(&peer.volume);
        tokio::select! {
            () = volume.paces.work.pass() => {}
            () = peer.gone() => return Ok(()),
        }
    }
    match (verb, peer.volume.record.role) {
        (Verb::Hold, Role::Provider) => provider::hold(agent, &mut peer).await,
        (Verb::Run, Role::Consumer) => consumer::run(agent, &mut peer).await,
        (Verb::Hook, Role::Consumer) => consumer::hook(agent, &mut peer).await,
        (verb, role) => {
            let message = format!("'{}' is not for the {role:?} pod", verb.as_str());
            peer.answer(&Answer::Error(message)).await
        }
    }
}

/// The instance of a volume, as soon as the agent has heard of it. `None` if the peer has gone.
async fn known(
    agent: &Agent,
    volume: &Volume,
    stream: &mut BufReader<UnixStream>,
) -> Result<Option<Arc<Instance>>> {
    let id = &volume.record.instance;
    if let Some(instance) = agent.instances.find(&id.uid) {
        return Ok(Some(instance));
    }
    let waiting =
        format!("waiting for the filesystem of {id}: the node agent does not know the instance yet");
    say(stream, &Answer::Wait(waiting)).await?;
    tokio::select! {
        instance = agent.instances.known(&id.uid) => Ok(Some(instance)),
        () = gone(stream) => Ok(None),
    }
}

/// Ends when the peer hangs up. Nothing that it says meanwhile matters.
async fn gone(stream: &mut BufReader<UnixStream>) {
    let mut buffer = [0; 64];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

// === impl Peer ===

impl Peer {
    /// Sends an answer.
    pub(crate) async fn answer(&mut self, answer: &Answer) -> Result<()> {
        say(&mut self.stream, answer).await
    }

    /// Tells what is being waited for, if that is news. Returns whether it is.
    pub(crate) async fn explain(&mut self, what: &str) -> Result<bool> {
        if self.said.as_deref() == Some(what) {
            return Ok(false);
        }
        self.said = Some(what.to_owned());
        let id = &self.volume.record.instance;
        self.answer(&Answer::Wait(format!(
            "waiting for the filesystem of {id}: {what}"
        )))
        .await?;
        Ok(true)
    }

    /// Ends when the peer hangs up. Nothing that it says meanwhile matters.
    pub(crate) async fn gone(&mut self) {
        gone(&mut self.stream).await;
    }

    /// The peer's container, as the runtime knows it, if it is the one that the volume is for; else what is wrong. From
    /// here on the peer's process is the one that the runtime started as that container, not the process that asks.
    pub(crate) async fn main_container(&mut self, agent: &Agent) -> Result<Result<Container, String>> {
        let container = agent.cri.container(&self.container_id).await?;
        let main = authorize::main_container(agent, &self.volume.record).await;
        let main = main.map_err(|status| anyhow!("{}", status.message()))?;
        if container.name != main {
            let problem = format!(
                "container {} is not {main}, which the volume is for",
                container.name
            );
            return Ok(Err(problem));
        }
        if let Some(id) = container.first {
            let id = Pid::from_raw(id).context("the runtime names no process")?;
            let first = Process::open(id).context("the first process of the container")?;
            // Another process may have the number by now.
            let cgroup = first.cgroup(&agent.host.proc)?;
            let of = cgroup::container_of(&cgroup, &self.volume.record.pod.uid);
            ensure!(
                of.as_ref() == Some(&self.container_id),
                "the first process of container {} has ended",
                self.container_id
            );
            self.process = Arc::new(first);
        }
        Ok(Ok(container))
    }
}

async fn say(stream: &mut BufReader<UnixStream>, answer: &Answer) -> Result<()> {
    let line = answer.to_line();
    tokio::time::timeout(ANSWER_TIME, stream.write_all(line.as_bytes()))
        .await
        .context("the peer does not take its answer")?
        .context("the peer is gone")
}
