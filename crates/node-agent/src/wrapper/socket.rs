/*!
The socket of a volume: accepts connections, checks them, and dispatches the requests.

Everything here is bounded: the connections of a volume and their rate (see `volumes::limits`), the
length of a line, the time for the request to arrive. Only the wait for a filesystem may last; it
ends with the peer, the volume or the agent.
*/

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use exec_wrapper::protocol::{Answer, Request, Verb};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::peer::Connection;
use super::{consumer, files, provider, sandbox};
use crate::filesystem::Filesystems;
use crate::instance::Instance;
use crate::volumes::{Role, Volume};

/// Most connections of one volume at the same time. Probes and hooks that wait take one each.
const CONNECTIONS: usize = 64;

/// Serves a volume until it is unpublished.
pub(crate) fn serve(filesystems: Arc<Filesystems>, volume: Arc<Volume>, listener: StdListener) -> Result<()> {
    let listener = UnixListener::from_std(listener).context("serve the socket")?;
    volume.set_served();
    {
        let (filesystems, volume) = (Arc::clone(&filesystems), Arc::clone(&volume));
        tokio::spawn(async move {
            let watched = sandbox::watch(&filesystems, &volume);
            volume.unpublished.run_until_cancelled(watched).await;
        });
    }
    tokio::spawn(async move {
        let unpublished = volume.unpublished.clone();
        unpublished
            .run_until_cancelled(accept(filesystems, volume, listener))
            .await;
    });
    Ok(())
}

async fn accept(filesystems: Arc<Filesystems>, volume: Arc<Volume>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        // Those that come faster wait in the socket's queue.
        volume.limits.connections.take().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; the connection stays in the queue.
                tracing::warn!(pod = %volume.record.pod, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (filesystems, volume) = (Arc::clone(&filesystems), Arc::clone(&volume));
        tokio::spawn(async move {
            let _slot = slot;
            let unpublished = volume.unpublished.clone();
            let served = unpublished
                .run_until_cancelled(converse(&filesystems, Arc::clone(&volume), stream))
                .await;
            if let Some(Err(error)) = served {
                tracing::debug!(pod = %volume.record.pod, "conversation with a wrapper: {error:#}");
            }
        });
    }
}

async fn converse(filesystems: &Filesystems, volume: Arc<Volume>, stream: UnixStream) -> Result<()> {
    let node = &filesystems.node;
    let Some(mut connection) = Connection::accept(node, &volume, stream).await? else {
        return Ok(());
    };
    let Some(request) = connection.request().await? else {
        return Ok(());
    };
    let Some(instance) = known_instance(filesystems, &volume, &mut connection).await? else {
        return Ok(());
    };
    let mut peer = connection.into_peer(Arc::clone(&volume), instance);
    if request != Request::Container(Verb::Hook) {
        tokio::select! {
            () = volume.limits.work.take() => {}
            () = peer.closed() => return Ok(()),
        }
    }
    match (request, volume.record.role) {
        (Request::Container(Verb::Hold), Role::Provider) => provider::hold(filesystems, &mut peer).await,
        (Request::Container(Verb::Run), Role::Consumer) => consumer::run(filesystems, &mut peer).await,
        (Request::Container(Verb::Hook), Role::Consumer) => consumer::hook(filesystems, &mut peer).await,
        (Request::Files(request), Role::Provider) => files::answer(filesystems, &mut peer, request).await,
        (request, role) => {
            let message = format!("'{}' is not for the {role:?} pod", request.as_str());
            peer.send(&Answer::Error(message)).await
        }
    }
}

/// The instance of a volume, as soon as the agent knows it. `None` if the peer hung up.
async fn known_instance(
    filesystems: &Filesystems,
    volume: &Volume,
    connection: &mut Connection,
) -> Result<Option<Arc<Instance>>> {
    let id = &volume.record.instance;
    if let Some(instance) = filesystems.instances.find(&id.uid) {
        return Ok(Some(instance));
    }
    let waiting =
        format!("waiting for the filesystem of {id}: the node agent does not know the instance yet");
    connection.send(&Answer::Wait(waiting)).await?;
    tokio::select! {
        instance = filesystems.instances.wait_until_known(&id.uid) => Ok(Some(instance)),
        () = connection.closed() => Ok(None),
    }
}
