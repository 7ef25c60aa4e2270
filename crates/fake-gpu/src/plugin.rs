/*!
The device plugin (`v1beta1`): offers the devices to the kubelet, and answers an allocation with
their names in CDI.
*/

use std::path::Path;

use anyhow::{Context, Result};
use csi_proto::device_plugin as api;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use crate::driver::{DEVICES, KIND};

/// Name of the plugin's socket in the kubelet's directory.
const SOCKET: &str = "fake-gpu.sock";
/// Name of the kubelet's socket there.
const KUBELET: &str = "kubelet.sock";

struct Plugin;

/// Serves in the kubelet's directory of device plugins. Returns only with an error.
pub(crate) async fn serve(directory: &Path) -> Result<()> {
    let socket = directory.join(SOCKET);
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
    let server = Server::builder()
        .add_service(api::device_plugin_server::DevicePluginServer::new(Plugin))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let server = tokio::spawn(server);
    register(directory).await?;
    println!("registered");
    server.await?.context("serving")
}

async fn register(directory: &Path) -> Result<()> {
    let kubelet = directory.join(KUBELET);
    let connector = tower::service_fn(move |_: Uri| {
        let kubelet = kubelet.clone();
        async move { UnixStream::connect(kubelet).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://kubelet").connect_with_connector_lazy(connector);
    api::registration_client::RegistrationClient::new(channel)
        .register(api::RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: SOCKET.to_owned(),
            resource_name: KIND.to_owned(),
            options: None,
        })
        .await
        .context("registering with the kubelet")?;
    Ok(())
}

// === impl Plugin ===

#[tonic::async_trait]
impl api::device_plugin_server::DevicePlugin for Plugin {
    async fn get_device_plugin_options(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<api::DevicePluginOptions>, Status> {
        Ok(Response::new(api::DevicePluginOptions::default()))
    }

    async fn list_and_watch(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<BoxStream<api::ListAndWatchResponse>>, Status> {
        let devices = (0..DEVICES).map(|number| api::Device {
            id: number.to_string(),
            health: "Healthy".to_owned(),
            topology: None,
        });
        let all = api::ListAndWatchResponse {
            devices: devices.collect(),
        };
        // The list does not change. The kubelet would take its end for the end of the plugin.
        let list = tokio_stream::once(Ok(all)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(list)))
    }

    async fn allocate(
        &self,
        request: Request<api::AllocateRequest>,
    ) -> Result<Response<api::AllocateResponse>, Status> {
        let of_container = |container: api::ContainerAllocateRequest| api::ContainerAllocateResponse {
            cdi_devices: container
                .devices_ids
                .into_iter()
                .map(|id| api::CdiDevice {
                    name: format!("{KIND}={id}"),
                })
                .collect(),
            ..api::ContainerAllocateResponse::default()
        };
        let requests = request.into_inner().container_requests;
        Ok(Response::new(api::AllocateResponse {
            container_responses: requests.into_iter().map(of_container).collect(),
        }))
    }
}
