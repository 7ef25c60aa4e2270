/*!
Which PersistentVolumeClaims a pod can use without the scheduler. Of a cluster's claims, which are
mostly those of other users, only the names of these are held.
*/

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use apiserver::{follow, watch};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use tokio::sync::watch as channel;

use crate::selections;

/// Names of claims by namespace.
type Names = HashMap<String, HashSet<Box<str>>>;

/// The claims, as of now.
#[derive(Clone)]
pub(super) struct Claims {
    settled: Arc<RwLock<Names>>,
    filled: channel::Receiver<bool>,
}

/// The writing end of the cache of claims.
pub struct ClaimsWriter {
    settled: Arc<RwLock<Names>>,
    filled: channel::Sender<bool>,
    /// What a list that is not complete has so far.
    listed: Names,
}

// === impl Claims ===

impl Claims {
    pub(super) fn new() -> (Self, ClaimsWriter) {
        let (sender, filled) = channel::channel(false);
        let settled: Arc<RwLock<Names>> = Arc::default();
        let writer = ClaimsWriter {
            settled: Arc::clone(&settled),
            filled: sender,
            listed: Names::new(),
        };
        (Self { settled, filled }, writer)
    }

    /// Returns once the claims have been listed, or `false` if that will not happen any more.
    pub(super) async fn filled(&self) -> bool {
        self.filled.clone().wait_for(|filled| *filled).await.is_ok()
    }

    /// Whether only the scheduler may place a pod with this claim. So it is with a claim that does
    /// not exist yet.
    pub(super) fn needs_scheduler(&self, namespace: &str, name: &str) -> bool {
        let settled = self.settled.read().unwrap_or_else(PoisonError::into_inner);
        settled.get(namespace).is_none_or(|names| !names.contains(name))
    }
}

// === impl ClaimsWriter ===

impl ClaimsWriter {
    /// Keeps the cache up to date. Ends only with the process.
    pub async fn run(mut self, client: Client) {
        let claims = watch::<_, selections::Claims>(&client, watcher::Config::default());
        follow(claims, |event| self.apply_watcher_event(&event)).await;
    }

    /// Takes an event of the watch.
    pub fn apply_watcher_event(&mut self, event: &Event<PersistentVolumeClaim>) {
        let mut settled = self.settled.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => self.listed = Names::new(),
            Event::InitApply(claim) => note(&mut self.listed, claim, !needs_scheduler(claim)),
            Event::InitDone => {
                *settled = std::mem::take(&mut self.listed);
                self.filled.send_replace(true);
            }
            Event::Apply(claim) => note(&mut settled, claim, !needs_scheduler(claim)),
            Event::Delete(claim) => note(&mut settled, claim, false),
        }
    }
}

fn note(names: &mut Names, claim: &PersistentVolumeClaim, is_settled: bool) {
    let namespace = claim.namespace().unwrap_or_default();
    if is_settled {
        let name = claim.name_any().into_boxed_str();
        names.entry(namespace).or_default().insert(name);
    } else if let Some(known) = names.get_mut(&namespace) {
        known.remove(claim.name_any().as_str());
        if known.is_empty() {
            names.remove(&namespace);
        }
    }
}

/// A claim waits for its first consumer until the scheduler has chosen a node, and only the
/// scheduler keeps a second pod from a ReadWriteOncePod claim.
fn needs_scheduler(claim: &PersistentVolumeClaim) -> bool {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let modes = claim
        .spec
        .as_ref()
        .and_then(|s| s.access_modes.as_deref())
        .unwrap_or_default();
    !bound || modes.iter().any(|mode| mode == "ReadWriteOncePod")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(name: &str, phase: &str, mode: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "accessModes": [mode] }, "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn claims_that_are_bound_and_shared_need_no_scheduler() {
        let (claims, mut writer) = Claims::new();
        let bound = claim("a", "Bound", "ReadWriteOnce");
        assert!(claims.needs_scheduler("team", "a"), "not seen yet");
        writer.apply_watcher_event(&Event::Apply(bound.clone()));
        writer.apply_watcher_event(&Event::Apply(claim("b", "Pending", "ReadWriteOnce")));
        writer.apply_watcher_event(&Event::Apply(claim("c", "Bound", "ReadWriteOncePod")));
        let needs = |name| claims.needs_scheduler("team", name);
        assert_eq!(["a", "b", "c"].map(needs), [false, true, true]);
        assert!(claims.needs_scheduler("other", "a"));
        writer.apply_watcher_event(&Event::Delete(bound));
        assert!(needs("a"), "it is gone");
        assert!(writer.settled.read().unwrap().is_empty(), "nothing is left of it");
    }

    #[tokio::test]
    async fn f14_a_claim_that_a_new_list_lacks_is_gone_and_a_list_counts_when_it_is_complete() {
        let (claims, mut writer) = Claims::new();
        let list = |names: &[&str]| {
            let all = names
                .iter()
                .map(|name| Event::InitApply(claim(name, "Bound", "ReadWriteMany")));
            std::iter::once(Event::Init).chain(all).collect::<Vec<_>>()
        };
        for event in list(&["a", "b"]) {
            writer.apply_watcher_event(&event);
        }
        assert!(claims.needs_scheduler("team", "a"), "the list is not complete");
        writer.apply_watcher_event(&Event::InitDone);
        assert!(claims.filled().await);
        assert!(!claims.needs_scheduler("team", "a"));
        for event in list(&["b"]) {
            writer.apply_watcher_event(&event);
        }
        writer.apply_watcher_event(&Event::InitDone);
        assert_eq!(
            ["a", "b"].map(|name| claims.needs_scheduler("team", name)),
            [true, false]
        );
    }
}
