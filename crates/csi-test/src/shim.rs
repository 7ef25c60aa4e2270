/*!
A CSI endpoint for csi-sanity.

csi-sanity leaves its best node tests out for a plugin without a controller, and every volume of
ours begins with a pod instead. So this says that it has one: its CreateVolume makes nothing but an
id and returns a volume context, what the kubelet sends about a pod. Identity and Node calls go to
the agent as they are.
*/

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use csi_proto::csi::controller_server::{Controller, ControllerServer};
use csi_proto::csi::controller_service_capability::{self, Rpc, rpc};
use csi_proto::csi::identity_client::IdentityClient;
use csi_proto::csi::identity_server::{Identity, IdentityServer};
use csi_proto::csi::node_client::NodeClient;
use csi_proto::csi::node_server::{Node, NodeServer};
use csi_proto::csi::plugin_capability::{self, Service, service};
use csi_proto::csi::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, PluginCapability, ProbeRequest, ProbeResponse, Volume,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

/// Passes calls on, and makes volumes out of nothing.
#[derive(Clone, Debug)]
struct Shim {
    agent: Channel,
    context: HashMap<String, String>,
}

/// Listens, and passes on to the agent. `context` is a JSON object of strings.
pub(crate) async fn serve(agent: Channel, listen: &str, context: &str) -> Result<()> {
    let shim = Shim {
        agent,
        context: serde_json::from_str(context).context("VOLUME_CONTEXT is not a JSON object of strings")?,
    };
    let listener = UnixListener::bind(listen).with_context(|| format!("listen at {listen}"))?;
    Server::builder()
        .add_service(IdentityServer::new(shim.clone()))
        .add_service(ControllerServer::new(shim.clone()))
        .add_service(NodeServer::new(shim))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .context("serve")
}

#[tonic::async_trait]
impl Identity for Shim {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        IdentityClient::new(self.agent.clone())
            .get_plugin_info(request)
            .await
    }

    /// The agent's and the one that it has not.
    async fn get_plugin_capabilities(
        &self,
        request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let mut answer = IdentityClient::new(self.agent.clone())
            .get_plugin_capabilities(request)
            .await?;
        answer.get_mut().capabilities.push(PluginCapability {
            r#type: Some(plugin_capability::Type::Service(Service {
                r#type: service::Type::ControllerService.into(),
            })),
        });
        Ok(answer)
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        IdentityClient::new(self.agent.clone()).probe(request).await
    }
}

#[tonic::async_trait]
impl Controller for Shim {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(Rpc {
                r#type: rpc::Type::CreateDeleteVolume.into(),
            })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: vec![capability],
        }))
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        // As the kubelet names inline volumes: "csi-" and 64 hexadecimal digits; the same for the
        // same name.
        let mut hasher = DefaultHasher::new();
        request.get_ref().name.hash(&mut hasher);
        let volume = Volume {
            volume_id: format!("csi-{}", format!("{:016x}", hasher.finish()).repeat(4)),
            volume_context: self.context.clone(),
            ..Volume::default()
        };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        _: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        Ok(Response::new(DeleteVolumeResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Shim {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        NodeClient::new(self.agent.clone())
            .node_publish_volume(request)
            .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        NodeClient::new(self.agent.clone())
            .node_unpublish_volume(request)
            .await
    }

    async fn node_get_capabilities(
        &self,
        request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        NodeClient::new(self.agent.clone())
            .node_get_capabilities(request)
            .await
    }

    async fn node_get_info(
        &self,
        request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        NodeClient::new(self.agent.clone()).node_get_info(request).await
    }
}
