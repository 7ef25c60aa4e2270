/*!
CSI Node: publish and unpublish, to the letter of the specification.

The agent logs every error with its pod, because otherwise only the kubelet would see the error. It
never logs volume context or secrets.
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
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tracing::field::{Empty, debug};
use tracing::{Instrument, Span};

use super::authorize::authorize;
use super::{CsiError, Plugin};
use crate::filesystem::{Filesystems, announce, blocked, usage, writeback};
use crate::instance::ObjectRef;
use crate::node::Target;
use crate::volumes::{Role, VolumeGuard, VolumeRecord, is_id};
use crate::wrapper;

/// Keys that the kubelet sets for a pod's inline volume.
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";

/// Names of the calls in logs and metrics.
const PUBLISH: &str = "NodePublishVolume";
const UNPUBLISH: &str = "NodeUnpublishVolume";

/// Most characters of a caller's key that an error repeats.
const LONGEST_NAMED: usize = 64;

/// The Node service.
pub(crate) struct NodeService {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) filesystems: Arc<Filesystems>,
}

/// A publish request that makes sense.
#[derive(Debug, PartialEq, Eq)]
struct Publish {
    id: String,
    target: PathBuf,
    pod: ObjectRef,
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let begin = Instant::now();
        let publish = Publish::read(&request.into_inner()).inspect_err(|error| {
            self.count(PUBLISH, Some(error), begin);
            tracing::warn!(code = ?error.code(), %error, "{PUBLISH}");
        })?;
        let span = call_span(PUBLISH);
        span.record("namespace", publish.pod.namespace.as_str());
        span.record("pod", publish.pod.name.as_str());
        let result = self.publish(&publish).instrument(span.clone()).await;
        record_code(&span, result.as_ref().err());
        self.count(PUBLISH, result.as_ref().err(), begin);
        match &result {
            Ok(role) => tracing::info!(pod = %publish.pod, pod_uid = publish.pod.uid, ?role, "published"),
            Err(CsiError::Placeholder(pod)) => tracing::debug!(%pod, "not published"),
            Err(error) => tracing::warn!(
                pod = %publish.pod, pod_uid = publish.pod.uid, code = ?error.code(), %error, "{PUBLISH}"
            ),
        }
        result?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, target) = (request.volume_id, request.target_path);
        let begin = Instant::now();
        let span = call_span(UNPUBLISH);
        let result = self.unpublish(&id, &target).instrument(span.clone()).await;
        if let Ok(Some(record)) = &result {
            span.record("namespace", record.pod.namespace.as_str());
            span.record("pod", record.pod.name.as_str());
        }
        record_code(&span, result.as_ref().err());
        self.count(UNPUBLISH, result.as_ref().err(), begin);
        match &result {
            Ok(Some(record)) => tracing::info!(pod = %record.pod, role = ?record.role, "unpublished"),
            Ok(None) => tracing::debug!(volume = id, "nothing to unpublish"),
            Err(error) => {
                tracing::warn!(volume = id, target, code = ?error.code(), %error, "{UNPUBLISH}");
            }
        }
        result?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
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
            node_id: self.filesystems.node.name.clone(),
            ..NodeGetInfoResponse::default()
        }))
    }
}

/// The span of a call. It has no field of the volume context, because the kubelet can put tokens
/// there.
fn call_span(method: &'static str) -> Span {
    tracing::info_span!(
        target: telemetry::SPANS, "call of the kubelet",
        otel.name = method, otel.kind = "server", otel.status_code = Empty,
        namespace = Empty, pod = Empty, code = Empty,
    )
}

fn record_code(span: &Span, error: Option<&CsiError>) {
    span.record("code", debug(error.map_or(Code::Ok, CsiError::code)));
    if error.is_some_and(|error| !matches!(error, CsiError::Placeholder(_))) {
        telemetry::failed(span);
    }
}

// === impl NodeService ===

impl NodeService {
    fn count(&self, method: &'static str, error: Option<&CsiError>, begin: Instant) {
        let code = error.map_or(Code::Ok, CsiError::code);
        self.filesystems.counters.csi_call(method, code, begin.elapsed());
    }

    async fn publish(&self, publish: &Publish) -> Result<Role, CsiError> {
        let volumes = &self.filesystems.volumes;
        let guard = volumes.try_lock(&publish.id).ok_or(CsiError::InProgress)?;
        self.check_below_kubelet_dir(&publish.target)?;
        let known = guard.recorded()?;
        if let Some(known) = &known
            && (known.pod != publish.pod || known.target != publish.target)
        {
            return Err(CsiError::PublishedElsewhere);
        }
        let authorized = authorize(&self.filesystems, &publish.pod).await?;
        let record = VolumeRecord {
            target: publish.target.clone(),
            pod: publish.pod.clone(),
            instance: authorized.pod.owner,
            role: authorized.role,
            prefix: authorized.prefix,
            container: Some(authorized.pod.container),
            image_id: authorized.pod.image_id,
        };
        if known.as_ref().is_some_and(|known| known.is_same(&record)) && volumes.get(&publish.id).is_some() {
            // Again: only the mount may be missing (a reboot took it), and making it twice does no
            // harm.
            if self.target(&record.target)? == Target::Mounted {
                return Ok(record.role);
            }
        }
        if let Err(error) = self.create(&guard, &record) {
            // After an error the kubelet may never call again, not even to unpublish.
            if known.is_none() {
                self.undo(&guard, &record.target);
            }
            return Err(error);
        }
        if let (Role::Provider, Some(image)) = (record.role, authorized.pod.local_image) {
            self.announce(&record, image);
        }
        Ok(record.role)
    }

    /// Looks beside the provider's start whether its filesystem is known already.
    fn announce(&self, record: &VolumeRecord, image: String) {
        let Some(instance) = self.filesystems.instances.find(&record.instance.uid) else {
            return;
        };
        let (filesystems, pod_uid) = (Arc::clone(&self.filesystems), record.pod.uid.clone());
        tokio::spawn(async move {
            if let Err(error) = announce::announce(&filesystems, &instance, &pod_uid, &image).await {
                tracing::debug!(instance = %instance.id, "not announced: {error:#}");
            }
        });
    }

    /// Makes the volume, mounts it at its target, and serves its socket.
    fn create(&self, guard: &VolumeGuard<'_>, record: &VolumeRecord) -> Result<(), CsiError> {
        let listener = tokio::task::block_in_place(|| {
            let (mount, listener) = guard.create(record)?;
            self.filesystems.node.host.mount_volume(&mount, &record.target)?;
            anyhow::Ok(listener)
        })?;
        let volume = guard.publish(record.clone());
        Ok(wrapper::serve(Arc::clone(&self.filesystems), volume, listener)?)
    }

    fn undo(&self, guard: &VolumeGuard<'_>, target: &Path) {
        let undone = tokio::task::block_in_place(|| {
            self.filesystems.node.host.unmount_volume(target)?;
            guard.remove()
        });
        if let Err(error) = undone {
            tracing::warn!(target = %target.display(), "cannot remove a volume whose publishing failed: {error:#}");
        }
    }

    async fn unpublish(&self, id: &str, target: &str) -> Result<Option<VolumeRecord>, CsiError> {
        if id.is_empty() || target.is_empty() {
            return Err(CsiError::InvalidRequest(
                "volume id and target path are required".to_owned(),
            ));
        }
        let target = target_path(target)?;
        if !is_id(id) {
            // Never published: such an id is refused there.
            return Ok(None);
        }
        self.check_below_kubelet_dir(&target)?;
        let filesystems = &self.filesystems;
        let guard = filesystems.volumes.try_lock(id).ok_or(CsiError::InProgress)?;
        let record = guard.recorded()?;
        if record.as_ref().is_some_and(|record| record.target != target) {
            // Published elsewhere, and that is not what was asked for.
            return Ok(None);
        }
        let consumer = record.as_ref().filter(|record| record.role == Role::Consumer);
        if let Some(record) = consumer {
            // The data is durable before the kubelet learns that the pod is gone.
            let volume = filesystems.volumes.get(id);
            let volume = volume.unwrap_or_else(|| guard.publish(record.clone()));
            writeback::sync_and_report(filesystems, &volume)
                .await
                .map_err(CsiError::Writeback)?;
        }
        tokio::task::block_in_place(|| {
            filesystems.node.host.unmount_volume(&target)?;
            guard.remove()
        })?;
        drop(guard);
        if let Some(record) = consumer.cloned() {
            let filesystems = Arc::clone(filesystems);
            tokio::spawn(async move {
                usage::measure_and_report(&filesystems, &record, usage::Moment::Stopped).await;
            });
        }
        if let Some(record) = &record {
            // Its data may have waited for this to be deleted.
            if let Some(instance) = filesystems.instances.find(&record.instance.uid) {
                blocked::forget(&instance, &record.pod.uid);
            }
        }
        Ok(record)
    }

    fn check_below_kubelet_dir(&self, target: &Path) -> Result<(), CsiError> {
        let kubelet_dir = &self.plugin.kubelet_dir;
        if target.starts_with(kubelet_dir) {
            Ok(())
        } else {
            Err(CsiError::TargetOutside(kubelet_dir.clone()))
        }
    }

    fn target(&self, target: &Path) -> Result<Target, CsiError> {
        let host = &self.filesystems.node.host;
        Ok(tokio::task::block_in_place(|| host.target(target))?)
    }
}

// === impl Publish ===

impl Publish {
    fn read(request: &NodePublishVolumeRequest) -> Result<Self, CsiError> {
        let invalid = |message: String| Err(CsiError::InvalidRequest(message));
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
                "unknown volume attribute {key:?}; the volume has no attributes"
            ));
        }
        if context.get(EPHEMERAL).map(String::as_str) != Some("true") {
            return invalid("only inline (ephemeral) volumes are supported".to_owned());
        }
        let pod = ObjectRef {
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

fn required(context: &HashMap<String, String>, key: &str) -> Result<String, CsiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match context.get(key) {
        Some(value) if !value.is_empty() && value.len() <= 253 && value.chars().all(plain) => {
            Ok(value.clone())
        }
        Some(_) => Err(CsiError::InvalidRequest(format!(
            "volume attribute {key} is not a valid object name"
        ))),
        None => Err(CsiError::InvalidRequest(format!(
            "volume attribute {key} is required (CSIDriver podInfoOnMount)"
        ))),
    }
}

fn target_path(path: &str) -> Result<PathBuf, CsiError> {
    let path = PathBuf::from(path);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.file_name().is_some() {
        Ok(path)
    } else {
        Err(CsiError::InvalidRequest(
            "the target path must be absolute and without '..'".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests;
