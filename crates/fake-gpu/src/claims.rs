/*!
The driver of claims (DRA, `v1`): answers the preparation of a claim with the name of a device in
CDI. It has one device, so it need not read which one the scheduler chose. The slice with the device
is the test's to make.
*/

use std::path::Path;

use anyhow::{Context, Result};
use csi_proto::{dra, registration};
use node_agent::registration_socket::Connection;
use tokio::net::UnixListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::driver::KIND;

/// Name of the driver.
const DRIVER: &str = "gpu.fake.example.com";
/// Name of the device.
const DEVICE: &str = "gpu-0";

/// The service, and its registration.
#[derive(Clone)]
struct Driver {
    /// Where the kubelet finds it.
    endpoint: String,
    /// The pool of the slice.
    pool: String,
}

/// Serves in a directory of the node, and makes it known in the kubelet's registry. Returns only
/// with an error.
pub(crate) async fn serve(registry: &Path, directory: &Path, pool: &str) -> Result<()> {
    let socket = directory.join("dra.sock");
    let driver = Driver {
        endpoint: socket.display().to_string(),
        pool: pool.to_owned(),
    };
    let service = dra::dra_plugin_server::DraPluginServer::new(driver.clone());
    let service = Server::builder()
        .add_service(service)
        .serve_with_incoming(listen(&socket)?);
    let registration = registration::registration_server::RegistrationServer::new(driver);
    let registered = registry.join(format!("{DRIVER}-reg.sock"));
    let registration = Server::builder()
        .add_service(registration)
        .serve_with_incoming(listen(&registered)?.map(|stream| stream.map(Connection::new)));
    tokio::try_join!(service, registration).context("serving")?;
    Ok(())
}

fn listen(socket: &Path) -> Result<UnixListenerStream> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
    Ok(UnixListenerStream::new(listener))
}

#[tonic::async_trait]
impl registration::registration_server::Registration for Driver {
    async fn get_info(
        &self,
        _: Request<registration::InfoRequest>,
    ) -> Result<Response<registration::PluginInfo>, Status> {
        Ok(Response::new(registration::PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["v1.DRAPlugin".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<registration::RegistrationStatus>,
    ) -> Result<Response<registration::RegistrationStatusResponse>, Status> {
        println!("{:?}", request.into_inner());
        Ok(Response::new(registration::RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl dra::dra_plugin_server::DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<dra::NodePrepareResourcesRequest>,
    ) -> Result<Response<dra::NodePrepareResourcesResponse>, Status> {
        let prepared = |claim: dra::Claim| {
            let device = dra::Device {
                pool_name: self.pool.clone(),
                device_name: DEVICE.to_owned(),
                cdi_device_ids: vec![format!("{KIND}=0")],
                ..dra::Device::default()
            };
            let answer = dra::NodePrepareResourceResponse {
                devices: vec![device],
                error: String::new(),
            };
            (claim.uid, answer)
        };
        let claims = request.into_inner().claims.into_iter().map(prepared).collect();
        Ok(Response::new(dra::NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<dra::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<dra::NodeUnprepareResourcesResponse>, Status> {
        let claims = request.into_inner().claims.into_iter();
        let claims = claims
            .map(|claim| (claim.uid, dra::NodeUnprepareResourceResponse::default()))
            .collect();
        Ok(Response::new(dra::NodeUnprepareResourcesResponse { claims }))
    }
}
