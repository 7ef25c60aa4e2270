/*!
Registration with the kubelet, which finds the socket of this service in its `plugins_registry` and
asks it for the plugin's own.
*/

use std::path::PathBuf;
use std::sync::Arc;

use csi_proto::registration::registration_server::Registration;
use csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use stoppablecontainer_api::names::CSI_DRIVER;
use tonic::{Request, Response, Status};

use super::Plugin;

/// The registration service.
pub(crate) struct RegistrationService {
    pub(crate) plugin: Arc<Plugin>,
    /// Path of the plugin's socket on the node.
    pub(crate) endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: CSI_DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("registered with the kubelet");
        } else {
            tracing::error!(error = status.error, "the kubelet refused the registration");
        }
        self.plugin.set_registered(status.plugin_registered);
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
