/*!
Warns the users of running containers when their disk is nearly full (`status.filesystem.diskLow`).
*/

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use stoppablecontainer_api::{FilesystemState, FilesystemStatus};

use super::{Filesystems, usage};
use crate::instance::{State, status};
use crate::node::Node;
use crate::node::space::{self, Space};

/// Tells those that run when their disk is nearly full, and when it is not any more.
pub(crate) async fn warn(filesystems: &Filesystems) {
    let running = usage::running(&filesystems.volumes);
    let mut disks = HashMap::<PathBuf, Option<Space>>::new();
    for instance in filesystems.instances.all() {
        let state = instance.state();
        let (Some(object), Some(before)) = (&state.object, state.filesystem()) else {
            continue;
        };
        let runs = running.contains_key(&instance.id.uid);
        let warned = before.disk_low.is_some();
        if !(runs || warned) || before.state == FilesystemState::Removed {
            continue;
        }
        let prefix = PathBuf::from(&object.spec.host_path_prefix);
        if !disks.contains_key(&prefix) {
            let space = free_space(&filesystems.node, &prefix).await;
            disks.insert(prefix.clone(), space);
        }
        let Some(space) = disks.get(&prefix).copied().flatten() else {
            continue;
        };
        let shortage = runs
            .then(|| filesystems.node.minimum_free.shortage(space, warned))
            .flatten();
        let disk_low = shortage.map(|shortage| {
            format!(
                "{}; writes fail when it is full. Free space on the node, or delete objects that are not needed",
                space::on(&filesystems.node.name, &prefix, &shortage)
            )
        });
        let news = |state: &State| {
            let now = state
                .filesystem()
                .filter(|now| now.state != FilesystemState::Removed && now.disk_low != disk_low)?;
            Some(FilesystemStatus {
                disk_low: disk_low.clone(),
                ..now.clone()
            })
        };
        if let Err(error) = status::update(&filesystems.client, &instance, news).await {
            tracing::warn!(instance = %instance.id, "cannot report the state of the disk: {error:#}");
        }
    }
}

async fn free_space(node: &Node, prefix: &Path) -> Option<Space> {
    match node.disks.get(prefix)?.space(&node.host).await {
        Ok(space) => Some(space),
        Err(error) => {
            tracing::warn!(prefix = %prefix.display(), "{error:#}");
            None
        }
    }
}
