/*!
The instances of this node, watched.
*/

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use apiserver::watch_trimmed;
use kube::Resource;
use kube::runtime::watcher::{self, Event};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::trimmed::{Trimmed, Whole};

use crate::filesystem::Filesystems;
use crate::sync::instance;

type TrimmedInstance = Trimmed<StoppableContainerInstance, Whole>;

/// Follows the instances of this node for ever.
pub(crate) async fn follow(filesystems: Arc<Filesystems>) -> Result<()> {
    // An object that does not fit its type stays as the agent last understood it.
    let config = watcher::Config::default().fields(&format!("status.nodeName={}", filesystems.node.name));
    let events = watch_trimmed::<StoppableContainerInstance, Whole>(&filesystems.client, config);
    let mut listed = HashSet::new();
    apiserver::follow(events, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            if let Some(uid) = apply(&filesystems, object) {
                listed.insert(uid);
            }
        }
        Event::InitDone => {
            filesystems.instances.retain(&listed);
            filesystems.instances.set_synced();
        }
        Event::Apply(object) => _ = apply(&filesystems, object),
        Event::Delete(object) => {
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            filesystems.instances.delete(uid);
        }
    })
    .await;
    bail!("the watch of instances ended")
}

fn apply(filesystems: &Arc<Filesystems>, object: TrimmedInstance) -> Option<String> {
    let object = match object.into_object() {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(name = error.metadata.name, namespace = error.metadata.namespace, error = %error.error, "instance is not understood");
            return error.metadata.uid;
        }
    };
    let instance = filesystems.instances.apply(object)?;
    let uid = instance.id.uid.clone();
    instance::spawn(Arc::clone(filesystems), instance);
    Some(uid)
}
