/*!
The instances of this node, watched.
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
use stoppablecontainer_api::trimmed::{self, Trimmed, Whole};

use crate::agent::Agent;
use crate::attend;

type TrimmedInstance = Trimmed<StoppableContainerInstance, Whole>;

/// Follows the instances of this node for ever.
pub(crate) async fn follow(agent: Arc<Agent>) -> Result<()> {
    // `TrimmedInstance` accepts a single object that does not fit its type, which would else end the watch.
    let api: Api<TrimmedInstance> = Api::all(agent.client.clone());
    let config = watcher::Config::default()
        .page_size(trimmed::PAGE)
        .fields(&format!("status.nodeName={}", agent.node_name));
    let events = resynced(|| watcher(api.clone(), config.clone()).default_backoff());
    pin_mut!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(uid) = apply(&agent, object) {
                    listed.insert(uid);
                }
            }
            Ok(Event::InitDone) => {
                agent.instances.retain(&listed);
                agent.set_synced();
            }
            Ok(Event::Apply(object)) => _ = apply(&agent, object),
            Ok(Event::Delete(object)) => {
                agent
                    .instances
                    .delete(object.meta().uid.as_deref().unwrap_or_default());
            }
            Err(error) => tracing::warn!(%error, "watch of instances"),
        }
    }
    bail!("the watch of instances ended")
}

fn apply(agent: &Arc<Agent>, object: TrimmedInstance) -> Option<String> {
    let object = match object.into_object() {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(name = error.metadata.name, namespace = error.metadata.namespace, error = %error.error, "instance is not understood");
            return error.metadata.uid;
        }
    };
    let instance = agent.instances.apply(object)?;
    let uid = instance.id.uid.clone();
    attend::spawn(Arc::clone(agent), instance);
    Some(uid)
}
