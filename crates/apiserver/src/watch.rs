/*!
The one loop of every watch: small pages, back-off, a list now and then ([`crate::resynced`]), and
an object that does not fit its type stops nothing.

The schema and the webhook refuse such an object; this is for objects that are older than both.
*/

use std::fmt::Debug;

use futures::{Stream, StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Lookup;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::trimmed::{PAGE, Selection, Trimmed};

use crate::resynced;

/// Watches all objects of a kind that `config` selects. An object that does not fit its type is
/// logged and skipped.
pub fn watch<K, S>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K, S>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Selection,
{
    watch_trimmed::<K, S>(client, config).filter_map(|event| async {
        Some(match event {
            Err(error) => Err(error),
            Ok(Event::Init) => Ok(Event::Init),
            Ok(Event::InitDone) => Ok(Event::InitDone),
            Ok(Event::InitApply(object)) => Ok(Event::InitApply(readable(object)?)),
            Ok(Event::Apply(object)) => Ok(Event::Apply(readable(object)?)),
            Ok(Event::Delete(object)) => Ok(Event::Delete(readable(object)?)),
        })
    })
}

/// The same with the objects that do not fit their type.
pub fn watch_trimmed<K, S>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<Trimmed<K, S>>>> + Send + use<K, S>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Selection,
{
    let api = Api::<Trimmed<K, S>>::all(client.clone());
    let config = config.page_size(PAGE);
    resynced(move || watcher::watcher(api.clone(), config.clone()).default_backoff())
}

/// Handles every event of a watch. An error is logged: the watch starts again by itself.
pub async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut handle: impl FnMut(Event<K>),
) where
    K: Lookup,
    K::DynamicType: Default,
{
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => handle(event),
            Err(error) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                tracing::warn!(kind, %error, "a watch was interrupted; it starts again by itself");
            }
        }
    }
}

/// Keeps a cache up to date with a watch. Before the cache takes an event `prepare` sees it, and
/// returns what is called after that.
pub async fn mirror<K, N>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut cache: Writer<K>,
    mut prepare: impl FnMut(&Event<K>) -> N,
) where
    K: Lookup<DynamicType = ()> + Clone + 'static,
    N: FnOnce(),
{
    follow(events, |event| {
        let notify = prepare(&event);
        cache.apply_watcher_event(&event);
        notify();
    })
    .await;
}

fn readable<K: Resource<DynamicType = ()>, S>(object: Trimmed<K, S>) -> Option<K> {
    match object.into_object() {
        Ok(object) => Some(object),
        Err(unreadable) => {
            tracing::error!(
                kind = %K::kind(&()),
                namespace = unreadable.metadata.namespace.as_deref().unwrap_or_default(),
                name = unreadable.metadata.name.as_deref().unwrap_or_default(),
                error = unreadable.error,
                "object cannot be read and is passed over; correct it"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stoppablecontainer_api::StoppableContainer;
    use stoppablecontainer_api::trimmed::Whole;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_is_passed_over() {
        let broken = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": { "name": "broken" }, "spec": { "running": "yes" },
        });
        let object: Trimmed<StoppableContainer, Whole> = serde_json::from_value(broken).unwrap();
        assert!(readable(object).is_none());
    }
}
