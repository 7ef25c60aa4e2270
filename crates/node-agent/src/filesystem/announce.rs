/*!
Announces the filesystem of a new instance while its provider pod starts, so that the controller
creates the consumer pod meanwhile. The consumer's command waits until the filesystem is prepared
(see [`super::prepare`]), which needs the root of the provider's container.

This is possible if the node has the image, the kubelet does not ask the registry for it, the disk
can take a new filesystem, and a filesystem of the same namespace was made of the image before: only
then does the agent know the user, whose groups are in files of the image. In all other cases
nothing is announced, and the consumer pod is created when the filesystem is prepared.
*/

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::data::{self, Data};
use super::{Filesystems, Reporter, prepare};
use crate::instance::Instance;

/// Announces the filesystem for the provider's pod with this UID, whose container runs `image` as
/// the node has it.
///
/// # Errors
/// If the node cannot be asked, or the status cannot be written. Preparing reports what lasts.
pub(crate) async fn announce(
    filesystems: &Filesystems,
    instance: &Instance,
    provider_pod_uid: &str,
    image: &str,
) -> Result<()> {
    let state = instance.state();
    let Some(object) = state.object.as_ref().filter(|_| state.filesystem().is_none()) else {
        return Ok(());
    };
    let spec = &object.spec;
    let known = filesystems
        .known_images
        .find(&instance.id.namespace, spec.main_image(), |image| {
            spec.requested_user(image)
        });
    let Some((facts, identity)) = known else {
        return Ok(());
    };
    let node = &filesystems.node;
    let Some(disk) = node.disks.get(Path::new(&spec.host_path_prefix)) else {
        return Ok(());
    };
    if node.cri.image_id(image).await?.as_ref() != Some(&facts.id) {
        return Ok(());
    }
    let mut guard = instance.lock_data().await;
    let slot = disk.preparations.acquire().await;
    let _slot = slot.context("the agent is shutting down")?;
    let Ok((data, space)) = prepare::look(node, disk, instance, None, &mut guard).await else {
        return Ok(());
    };
    if data != Data::Absent || prepare::check_space(node, disk, space).is_err() {
        return Ok(());
    }
    let (host, prefix) = (Arc::clone(&node.host), disk.path.clone());
    let is_possible = move || data::is_possible(&host.root, &prefix);
    if !guard.on_disk(is_possible).await?? {
        return Ok(());
    }
    Reporter::new(filesystems, instance, provider_pod_uid)
        .announced(&facts, &identity)
        .await
}
