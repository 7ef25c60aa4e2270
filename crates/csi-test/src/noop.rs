/*!
A driver of inline volumes that does nothing: a volume is an empty directory. `cargo xtask bench
starts` compares with pods that have such a volume, because the kubelet calls a driver at each start
of a pod with a volume of CSI, whatever the driver does.

One socket in the kubelet's registry serves the registration and the driver.
*/

use std::collections::HashSet;
use std::fs::{create_dir, remove_dir, remove_file};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use csi_proto::csi::node_server::{Node, NodeServer};
use csi_proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use csi_proto::registration::registration_server::{Registration, RegistrationServer};
use csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use node_agent::registration_socket::Connection;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The driver, and its registration.
#[derive(Clone, Debug)]
struct Driver {
    name: String,
    node: String,
    /// Where the kubelet finds the driver.
    endpoint: String,
    /// Ids of the volumes that exist.
    published: watch::Sender<HashSet<String>>,
}

/// Serves a driver of this name until SIGTERM. While pods have its volumes, the kubelet needs the
/// driver to end them, so they end first.
pub(crate) async fn serve(name: &str, registry: &Path, node: &str) -> Result<()> {
    let socket = registry.join(format!("{name}-reg.sock"));
    let driver = Driver {
        name: name.to_owned(),
        node: node.to_owned(),
        endpoint: socket.display().to_string(),
        published: watch::Sender::default(),
    };
    let mut published = driver.published.subscribe();
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let _ = remove_file(&socket);
    let listener = UnixListener::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
    let (end, mut ending) = watch::channel(false);
    let server = Server::builder()
        .add_service(RegistrationServer::new(driver.clone()))
        .add_service(NodeServer::new(driver))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener).map(|stream| stream.map(Connection::new)),
            async move {
                let _ = ending.wait_for(|end| *end).await;
            },
        );
    let mut server = std::pin::pin!(server);
    let ended = async {
        terminate.recv().await;
        let _ = published.wait_for(HashSet::is_empty).await;
    };
    tokio::select! {
        result = &mut server => result.context("serving")?,
        () = ended => {}
    }
    end.send_replace(true);
    let _ = timeout(LAST_ANSWERS, server).await;
    remove_file(&socket).with_context(|| format!("removing {}", socket.display()))
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        println!("{:?}", request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        match create_dir(&request.target_path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(&error)),
            _ => {
                self.published.send_modify(|ids| {
                    ids.insert(request.volume_id);
                });
                Ok(Response::new(NodePublishVolumeResponse {}))
            }
        }
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        match remove_dir(&request.target_path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error)),
            _ => {
                self.published.send_modify(|ids| {
                    ids.remove(&request.volume_id);
                });
                Ok(Response::new(NodeUnpublishVolumeResponse {}))
            }
        }
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(NodeGetCapabilitiesResponse::default()))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.clone(),
            ..NodeGetInfoResponse::default()
        }))
    }
}

fn failed(error: &std::io::Error) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_is_a_directory_that_comes_and_goes_however_often_it_is_asked() {
        let target = std::env::temp_dir().join(format!("csi-test-{}", std::process::id()));
        let driver = Driver {
            name: String::new(),
            node: String::new(),
            endpoint: String::new(),
            published: watch::Sender::default(),
        };
        for _ in 0..2 {
            let request = NodePublishVolumeRequest {
                volume_id: "1".to_owned(),
                target_path: target.display().to_string(),
                ..NodePublishVolumeRequest::default()
            };
            driver.node_publish_volume(Request::new(request)).await.unwrap();
            assert!(target.is_dir() && driver.published.borrow().len() == 1);
        }
        for _ in 0..2 {
            let request = NodeUnpublishVolumeRequest {
                volume_id: "1".to_owned(),
                target_path: target.display().to_string(),
            };
            driver.node_unpublish_volume(Request::new(request)).await.unwrap();
            assert!(!target.exists() && driver.published.borrow().is_empty());
        }
    }
}
