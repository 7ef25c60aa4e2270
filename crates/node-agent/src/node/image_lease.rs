/*!
Keeps the layers of an image on the node as long as a kept filesystem lies on them (invariant I20).

The provider's container keeps the kubelet from removing the image. On a full disk the kubelet
evicts the provider, then removes the image, and the runtime deletes the layers under the overlay of
a consumer that still runs. A lease of containerd keeps the snapshots that it names, and all below
them, whatever becomes of the image (containerd, docs/garbage-collection.md). CRI does not have
leases: with another runtime the provider alone keeps the image, and this module does nothing.

There is one lease for each instance, from when its filesystem is prepared until its data is
removed.
*/

use std::collections::HashMap;

use csi_proto::containerd::leases::leases_client::LeasesClient;
use csi_proto::containerd::leases::{
    AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest,
    ListResourcesRequest, Resource,
};
use csi_proto::containerd::snapshots::StatSnapshotRequest;
use csi_proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use serde::Deserialize;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{Cri, CriError, Runtime};

/// The namespace of containerd that the kubelet's containers are in, and the header that names it.
const NAMESPACE: (&str, &str) = ("containerd-namespace", "k8s.io");
/// Label of our leases; the value is the instance's UID.
const LABEL: &str = "stoppablecontainer.xtlsoft.top/instance";

/// The part of containerd's verbose container status that says where the container's files are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    snapshotter: String,
    #[serde(default)]
    snapshot_key: String,
}

/// Keeps the layers of the image that a container was made of. Others that were kept for the
/// instance are given up, unless a consumer may still be on them (`in_use`).
///
/// # Errors
/// Those of the runtime. A runtime without leases is not an error.
pub(crate) async fn pin(cri: &Cri, uid: &str, container_id: &str, in_use: bool) -> Result<(), CriError> {
    let (runtime, kept) = match snapshot(cri, container_id).await {
        Ok(Some(kept)) => kept,
        Ok(None) => return Ok(()),
        Err(error) if has_no_leases(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut leases = LeasesClient::new(runtime.channel());
    let create = CreateRequest {
        id: lease(uid),
        labels: HashMap::from([(LABEL.to_owned(), uid.to_owned())]),
    };
    match leases.create(of_kubelet(create)).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(status.into()),
    }
    let add = AddResourceRequest {
        id: lease(uid),
        resource: Some(kept.clone()),
    };
    leases.add_resource(of_kubelet(add)).await?;
    if in_use {
        return Ok(());
    }
    let list = ListResourcesRequest { id: lease(uid) };
    let listed = leases.list_resources(of_kubelet(list)).await?.into_inner();
    for other in listed.resources.into_iter().filter(|other| *other != kept) {
        let delete = DeleteResourceRequest {
            id: lease(uid),
            resource: Some(other),
        };
        leases.delete_resource(of_kubelet(delete)).await?;
    }
    Ok(())
}

/// Keeps nothing for an instance any more. Fine if nothing was kept.
///
/// # Errors
/// As for [`pin`].
pub(crate) async fn unpin(cri: &Cri, uid: &str) -> Result<(), CriError> {
    // The container whose runtime had the lease is gone.
    let delete = async |channel| {
        let delete = DeleteRequest { id: lease(uid) };
        match LeasesClient::new(channel).delete(of_kubelet(delete)).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(()),
            Err(status) => Err(status.into()),
        }
    };
    cri.ask_all(&lease(uid), delete).await?;
    Ok(())
}

/// UIDs of the instances that something is kept for.
///
/// # Errors
/// As for [`pin`].
pub(crate) async fn pinned(cri: &Cri) -> Result<Vec<String>, CriError> {
    let list = async |channel| {
        let list = ListRequest {
            filters: vec![format!("labels.\"{LABEL}\"")],
        };
        match LeasesClient::new(channel).list(of_kubelet(list)).await {
            Ok(listed) => Ok(listed.into_inner().leases),
            Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
            Err(status) => Err(status.into()),
        }
    };
    let leases = cri.ask_all("the list of leases", list).await?;
    let leases = leases.into_iter().flatten();
    Ok(leases
        .filter_map(|mut lease| lease.labels.remove(LABEL))
        .collect())
}

/// The topmost layer of the image that a container was made of. `None` if the runtime does not say.
async fn snapshot(cri: &Cri, container_id: &str) -> Result<Option<(Runtime, Resource)>, CriError> {
    let Some((runtime, info)) = cri.container_info(container_id).await? else {
        return Ok(None);
    };
    let Some(info) = serde_json::from_str::<Info>(&info)
        .ok()
        .filter(|info| !info.snapshotter.is_empty() && !info.snapshot_key.is_empty())
    else {
        return Ok(None);
    };
    let stat = StatSnapshotRequest {
        snapshotter: info.snapshotter.clone(),
        key: info.snapshot_key,
    };
    let stat = SnapshotsClient::new(runtime.channel())
        .stat(of_kubelet(stat))
        .await?;
    let parent = stat.into_inner().info.map(|info| info.parent).unwrap_or_default();
    let resource = Resource {
        id: parent,
        r#type: format!("snapshots/{}", info.snapshotter),
    };
    Ok((!resource.id.is_empty()).then_some((runtime, resource)))
}

fn has_no_leases(error: &CriError) -> bool {
    matches!(error, CriError::Call(status) if status.code() == Code::Unimplemented)
}

fn lease(uid: &str) -> String {
    format!("stoppablecontainer-{uid}")
}

fn of_kubelet<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let (key, value) = NAMESPACE;
    request
        .metadata_mut()
        .insert(key, MetadataValue::from_static(value));
    request
}
