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

use crate::agent::Agent;
use crate::attend;

type TrimmedInstance = Trimmed<StoppableContainerInstance, Whole>;

/// Follows the instances of this node for ever.
pub(crate) async fn follow(agent: Arc<Agent>) -> Result<()> {
    // An object that does not fit its type stays as the agent last understood it.
    let config = watcher::Config::default().fields(&format!("status.nodeName={}", agent.node_name));
    let events = watch_trimmed::<StoppableContainerInstance, Whole>(&agent.client, config);
    let mut listed = HashSet::new();
    apiserver::follow(events, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            if let Some(uid) = apply(&agent, object) {
                listed.insert(uid);
            }
        }
        Event::InitDone => {
            agent.instances.retain(&listed);
            agent.set_synced();
        }
        Event::Apply(object) => _ = apply(&agent, object),
        Event::Delete(object) => {
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            agent.instances.delete(uid);
        }
    })
    .await;
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
