/*!
The watch of the instances of this node.
*/

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use apiserver::resynced;
use futures::{StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::held::{self, Held, Whole};

use super::instance;
use crate::filesystem::Filesystems;

type HeldInstance = Held<StoppableContainerInstance, Whole>;

/// Follows the instances of this node.
pub(crate) async fn follow(filesystems: Arc<Filesystems>) -> Result<()> {
    // `HeldInstance` accepts a single object that does not fit its type, which would else end the
    // watch.
    let api: Api<HeldInstance> = Api::all(filesystems.client.clone());
    let config = watcher::Config::default()
        .page_size(held::PAGE)
        .fields(&format!("status.nodeName={}", filesystems.node.name));
    let events = resynced(|| watcher(api.clone(), config.clone()).default_backoff());
    pin_mut!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(uid) = apply(&filesystems, object) {
                    listed.insert(uid);
                }
            }
            Ok(Event::InitDone) => {
                filesystems.instances.retain(&listed);
                filesystems.instances.set_synced();
            }
            Ok(Event::Apply(object)) => _ = apply(&filesystems, object),
            Ok(Event::Delete(object)) => {
                filesystems
                    .instances
                    .delete(object.meta().uid.as_deref().unwrap_or_default());
            }
            Err(error) => tracing::warn!(%error, "watch of instances"),
        }
    }
    bail!("the watch of instances ended")
}

fn apply(filesystems: &Arc<Filesystems>, object: HeldInstance) -> Option<String> {
    let object = match object.into_object() {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(name = error.metadata.name, namespace = error.metadata.namespace, error = %error.error, "cannot read an instance");
            return error.metadata.uid;
        }
    };
    let instance = filesystems.instances.apply(object)?;
    let uid = instance.id.uid.clone();
    instance::spawn(Arc::clone(filesystems), instance);
    Some(uid)
}
