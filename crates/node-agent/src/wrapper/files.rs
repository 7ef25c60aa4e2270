/*!
Requests of users about the kept files, which come through the provider: the plugin of kubectl
executes the wrapper in it. So who may execute programs in the pods of the namespace may ask, and
the answer is about the instance of the volume alone.

One request of an instance is answered at a time, and few of a namespace and a disk. The peer has to
take the answer without long pauses, and within some time altogether.
*/

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use exec_wrapper::protocol::Answer;
use kept_files::Request;
use tokio::sync::mpsc;

use super::peer::Peer;
use crate::filesystem::Filesystems;
use crate::filesystem::files::Files;

/// Frames between the thread that reads the files and the task that sends them.
const FRAMES: usize = 2;
/// How long an answer may take altogether.
const TIME: Duration = Duration::from_mins(5);

/// Answers a request.
pub(super) async fn answer(filesystems: &Filesystems, peer: &mut Peer, request: Request) -> Result<()> {
    // From here on the peer's process is the first one of the container, whose root is the image.
    if let Err(error) = peer.main_container(filesystems).await {
        return refuse(peer, &format!("{:#}", anyhow::Error::from(error))).await;
    }
    let Some(object) = peer.instance.state().object else {
        return refuse(peer, "the node agent does not know the object yet; try again").await;
    };
    if object.metadata.deletion_timestamp.is_some() {
        return refuse(peer, "it is being deleted").await;
    }
    let node = &filesystems.node;
    let Some(disk) = node.disks.get(Path::new(&object.spec.host_path_prefix)) else {
        let problem = "spec.hostPathPrefix is not among those that the node allows";
        return refuse(peer, problem).await;
    };
    let Ok(turn) = Arc::clone(&peer.instance.reading).try_lock_owned() else {
        let problem = "another request about its files is running; try again when it has ended";
        return refuse(peer, problem).await;
    };
    let reader = match disk.readers.begin(&peer.instance.id.namespace) {
        Ok(reader) => reader,
        Err(error) => return refuse(peer, &error.to_string()).await,
    };
    let files = Files {
        host: Arc::clone(&node.host),
        object,
        key: peer.instance.id.uid.clone(),
        image: Arc::clone(&peer.process),
    };
    let instance = peer.instance.id.to_string();
    let (send, receive) = mpsc::channel(FRAMES);
    let work = move || {
        // With the thread, which may wait for a disk that does not answer.
        let _held = (turn, reader);
        if let Err(error) = files.answer(&request, Sender(send)) {
            tracing::debug!(%instance, "a request about kept files: {error:#}");
        }
    };
    std::thread::Builder::new()
        .name("files".to_owned())
        .spawn(work)
        .context("start a thread")?;
    peer.send(&Answer::Done).await?;
    // The end of the receiver ends the thread.
    tokio::time::timeout(TIME, pass_on(peer, receive))
        .await
        .context("the peer takes the answer too slowly")?
}

async fn pass_on(peer: &mut Peer, mut frames: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => peer.send_data(&frame).await?,
                None => return Ok(()),
            },
            () = peer.closed() => return Ok(()),
        }
    }
}

async fn refuse(peer: &mut Peer, problem: &str) -> Result<()> {
    let id = peer.instance.id.clone();
    peer.send(&Answer::Error(format!(
        "the files of {id} cannot be read: {problem}"
    )))
    .await
}

/// Passes what is written to a task.
struct Sender(mpsc::Sender<Vec<u8>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
