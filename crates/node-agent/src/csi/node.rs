/*!
CSI Node: publish and unpublish, to the letter of the specification.

Every error is logged with the pod that it concerns, as the kubelet is the only
other one to see it; volume context and secrets never are.
*/

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use csi_proto::csi::node_server::Node;
use csi_proto::csi::volume_capability::AccessType;
use csi_proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use tonic::{Request, Response, Status};

use crate::agent::Agent;
use crate::csi::authorize::authorise;
use crate::filesystem::blocked;
use crate::filesystem::usage;
use crate::filesystem::usage::Moment;
use crate::filesystem::writeback;
use crate::node::host::Target;
use crate::volumes::record::{Object, Record, Role};
use crate::volumes::{Claim, is_id};
use crate::wrapper::socket;

/// Keys that the kubelet sets for a pod's inline volume.
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";

/// Most characters of somebody else's word that an error repeats.
const LONGEST_NAMED: usize = 64;

/// The Node service.
pub(crate) struct NodeService(pub(crate) Arc<Agent>);

/// A publish request that makes sense.
#[derive(Debug, PartialEq, Eq)]
struct Publish {
    id: String,
    target: PathBuf,
    pod: Object,
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let publish = Publish::read(&request.into_inner()).inspect_err(|status| {
            tracing::warn!(code = ?status.code(), error = status.message(), "NodePublishVolume");
        })?;
        let result = self.publish(&publish).await;
        match &result {
            Ok(role) => tracing::info!(pod = %publish.pod, pod_uid = publish.pod.uid, ?role, "published"),
            Err(status) => tracing::warn!(
                pod = %publish.pod, pod_uid = publish.pod.uid, code = ?status.code(), error = status.message(),
                "NodePublishVolume"
            ),
        }
        result.map(|_| Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, target) = (request.volume_id, request.target_path);
        let result = self.unpublish(&id, &target).await;
        match &result {
            Ok(Some(record)) => tracing::info!(pod = %record.pod, role = ?record.role, "unpublished"),
            Ok(None) => tracing::debug!(volume = id, "unpublished what was not there"),
            Err(status) => tracing::warn!(
                volume = id, target, code = ?status.code(), error = status.message(), "NodeUnpublishVolume"
            ),
        }
        result.map(|_| Response::new(NodeUnpublishVolumeResponse {}))
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
        let node_id = self.0.node_name.clone();
        Ok(Response::new(NodeGetInfoResponse {
            node_id,
            ..NodeGetInfoResponse::default()
        }))
    }
}

// === impl NodeService ===

impl NodeService {
    async fn publish(&self, publish: &Publish) -> Result<Role, Status> {
        let agent = &self.0;
        let Some(claim) = agent.volumes.claim(&publish.id) else {
            return Err(Status::aborted("another call for this volume is under way"));
        };
        if !publish.target.starts_with(&agent.kubelet_dir) {
            let message = format!("the target path is not below {}", agent.kubelet_dir.display());
            return Err(Status::invalid_argument(message));
        }
        let known = claim.recorded().map_err(|e| internal(&e))?;
        if let Some(known) = &known
            && (known.pod != publish.pod || known.target != publish.target)
        {
            return Err(Status::already_exists(
                "the volume is published for another pod or at another path",
            ));
        }
        let authorised = authorise(agent, &publish.pod).await?;
        let record = Record {
            target: publish.target.clone(),
            pod: publish.pod.clone(),
            instance: authorised.instance,
            role: authorised.role,
            prefix: authorised.prefix,
            container: Some(authorised.container),
        };
        if known.as_ref().is_some_and(|known| known.is_same(&record))
            && agent.volumes.get(&publish.id).is_some()
        {
            // Again: only the mount may be missing (a reboot took it), and making it twice does no harm.
            if self.target(&record.target)? == Target::Mounted {
                return Ok(record.role);
            }
        }
        match self.make(&claim, &record) {
            Ok(()) => Ok(record.role),
            Err(status) => {
                // After an error the kubelet may never call again, not even to unpublish.
                if known.is_none() {
                    self.take_back(&claim, &record.target);
                }
                Err(status)
            }
        }
    }

    fn make(&self, claim: &Claim<'_>, record: &Record) -> Result<(), Status> {
        let agent = &self.0;
        let listener = tokio::task::block_in_place(|| {
            let (mount, listener) = claim.create(record)?;
            agent.host.mount_volume(&mount, &record.target)?;
            anyhow::Ok(listener)
        })
        .map_err(|e| internal(&e))?;
        let volume = claim.publish(record.clone());
        socket::spawn(Arc::clone(agent), volume, listener).map_err(|e| internal(&e))
    }

    fn take_back(&self, claim: &Claim<'_>, target: &Path) {
        let taken = tokio::task::block_in_place(|| {
            self.0.host.unmount_volume(target)?;
            claim.remove()
        });
        if let Err(error) = taken {
            tracing::warn!(target = %target.display(), "cannot take back a volume: {error:#}");
        }
    }

    async fn unpublish(&self, id: &str, target: &str) -> Result<Option<Record>, Status> {
        let agent = &self.0;
        if id.is_empty() || target.is_empty() {
            return Err(Status::invalid_argument("volume id and target path are required"));
        }
        let target = target_path(target)?;
        if !is_id(id) {
            // Never published: such an id is refused there.
            return Ok(None);
        }
        if !target.starts_with(&agent.kubelet_dir) {
            let message = format!("the target path is not below {}", agent.kubelet_dir.display());
            return Err(Status::invalid_argument(message));
        }
        let Some(claim) = agent.volumes.claim(id) else {
            return Err(Status::aborted("another call for this volume is under way"));
        };
        let record = claim.recorded().map_err(|e| internal(&e))?;
        if record.as_ref().is_some_and(|record| record.target != target) {
            // Published elsewhere, and that is not what was asked for.
            return Ok(None);
        }
        if let Some(record) = record.as_ref().filter(|record| record.role == Role::Consumer) {
            // The data is safe before anybody hears that the pod is gone.
            let volume = agent
                .volumes
                .get(id)
                .unwrap_or_else(|| claim.publish(record.clone()));
            writeback::settle(agent, &volume)
                .await
                .map_err(|e| Status::unavailable(format!("{e:#}")))?;
        }
        tokio::task::block_in_place(|| {
            agent.host.unmount_volume(&target)?;
            claim.remove()
        })
        .map_err(|e| internal(&e))?;
        drop(claim);
        if let Some(record) = record.clone().filter(|record| record.role == Role::Consumer) {
            let agent = Arc::clone(agent);
            tokio::spawn(async move { usage::observe(&agent, &record, Moment::Stopped).await });
        }
        if let Some(record) = &record {
            // Its data may have waited for this to be deleted.
            if let Some(instance) = agent.instances.find(&record.instance.uid) {
                blocked::forget(&instance, &record.pod.uid);
            }
        }
        Ok(record)
    }

    fn target(&self, target: &Path) -> Result<Target, Status> {
        tokio::task::block_in_place(|| self.0.host.target(target)).map_err(|e| internal(&e))
    }
}

// === impl Publish ===

impl Publish {
    fn read(request: &NodePublishVolumeRequest) -> Result<Self, Status> {
        let invalid = |message: String| Err(Status::invalid_argument(message));
        if request.volume_id.is_empty() || request.target_path.is_empty() {
            return invalid("volume id and target path are required".to_owned());
        }
        if !is_id(&request.volume_id) {
            return invalid("the volume id may have letters, digits, '-' and '_', at most 128".to_owned());
        }
        let target = target_path(&request.target_path)?;
        let Some(capability) = &request.volume_capability else {
            return invalid("a volume capability is required".to_owned());
        };
        match &capability.access_type {
            Some(AccessType::Mount(mount)) if mount.mount_flags.is_empty() => {}
            Some(AccessType::Mount(_)) => return invalid("mount flags are not supported".to_owned()),
            _ => return invalid("only mounted volumes are supported".to_owned()),
        }
        if !request.secrets.is_empty() || !request.publish_context.is_empty() {
            return invalid("secrets and publish context are not supported".to_owned());
        }
        let context = &request.volume_context;
        let known = [POD_NAME, POD_NAMESPACE, POD_UID, EPHEMERAL, SERVICE_ACCOUNT];
        if let Some(key) = context.keys().find(|key| !known.contains(&key.as_str())) {
            let key: String = key.chars().take(LONGEST_NAMED).collect();
            return invalid(format!(
                "volume attribute {key:?} is not known; the volume takes none"
            ));
        }
        if context.get(EPHEMERAL).map(String::as_str) != Some("true") {
            return invalid("only inline (ephemeral) volumes are supported".to_owned());
        }
        let pod = Object {
            namespace: required(context, POD_NAMESPACE)?,
            name: required(context, POD_NAME)?,
            uid: required(context, POD_UID)?,
        };
        Ok(Self {
            id: request.volume_id.clone(),
            target,
            pod,
        })
    }
}

fn required(context: &HashMap<String, String>, key: &str) -> Result<String, Status> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match context.get(key) {
        Some(value) if !value.is_empty() && value.len() <= 253 && value.chars().all(plain) => {
            Ok(value.clone())
        }
        Some(_) => Err(Status::invalid_argument(format!(
            "volume attribute {key} is not the name of an object"
        ))),
        None => Err(Status::invalid_argument(format!(
            "volume attribute {key} is required (CSIDriver podInfoOnMount)"
        ))),
    }
}

fn target_path(path: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(path);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.file_name().is_some() {
        Ok(path)
    } else {
        Err(Status::invalid_argument(
            "the target path must be absolute and without '..'",
        ))
    }
}

fn internal(error: &anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
}

#[cfg(test)]
mod tests;
