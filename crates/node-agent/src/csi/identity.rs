//! CSI Identity: who this is and whether it works.

use std::sync::Arc;

use csi_proto::csi::identity_server::Identity;
use csi_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    ProbeRequest, ProbeResponse,
};
use stoppablecontainer_api::names::CSI_DRIVER;
use tonic::{Request, Response, Status};

use super::Plugin;
use crate::filesystem::Filesystems;

/// The Identity service.
pub(crate) struct IdentityService {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) filesystems: Arc<Filesystems>,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: CSI_DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        // No controller: every volume begins and ends with a pod.
        Ok(Response::new(GetPluginCapabilitiesResponse::default()))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = self.plugin.is_registered() && self.filesystems.instances.are_synced();
        Ok(Response::new(ProbeResponse { ready: Some(ready) }))
    }
}
