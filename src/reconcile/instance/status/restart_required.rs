/*!
Whether the consumer that runs was made from the object's present spec, and if not, which fields
were edited.

A consumer carries a short hash for each part of its template, so that the controller can name the
parts that differ. It does not show their values: they may be secrets.
*/

use std::collections::BTreeMap;

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::{ANNOTATION_TEMPLATE_FIELDS, ANNOTATION_TEMPLATE_HASH};
use stoppablecontainer_api::truncate_utf8;

use crate::reconcile::conditions::Cause;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{
    consumer_hash, has_started, is_terminating, resize, restart, template, template_fields,
};

/// Most fields that are named.
const MAX_NAMED: usize = 10;
/// Longest path that is named, in bytes. Only a field that Kubernetes does not know has a longer
/// one.
const MAX_PATH: usize = 128;

/// Why the consumer that runs is to be stopped and started, if the object was edited since it was
/// made.
pub(crate) fn why(observed: &Observed) -> Option<Cause> {
    let instance = &observed.instance;
    let pod = observed.consumer.pod().filter(|pod| !is_terminating(pod))?;
    // One that never ran is replaced, and one that is to stop is stopped. A template that no pod
    // can be made of has a condition of its own.
    if !instance.spec.running
        || observed.deleting()
        || !has_started(pod, instance.spec.main_container())
        || template::blocking_cause(instance).is_some()
        // It is restarted now.
        || restart::is_due(instance, pod)
    {
        return None;
    }
    let made_from = pod.annotations().get(ANNOTATION_TEMPLATE_HASH)?;
    let same_template = *made_from == consumer_hash(instance);
    let before = pod.annotations().get(ANNOTATION_TEMPLATE_FIELDS);
    let before = before.and_then(|fields| serde_json::from_str::<BTreeMap<String, String>>(fields).ok());
    let edited = before
        .map(|before| template_fields::edited(instance, before, same_template))
        .unwrap_or_default();
    if edited.is_empty() && same_template {
        return None;
    }
    let what = if edited.is_empty() {
        "the template was edited".to_owned()
    } else {
        format!("these fields were edited: {}", named(&edited))
    };
    let refused = observed
        .resize_refused
        .as_ref()
        .map(|refused| refused.message.clone());
    let refused = refused.or_else(|| resize::wanted(instance, pod)?.err());
    let in_place = refused.map_or(String::new(), |refused| {
        format!(" (CPU and memory are not changed while it runs: {refused})")
    });
    Some(Cause::new(
        reason::TEMPLATE_EDITED,
        format!(
            "since pod {} was created {what}; stop and start the object, or restart it, for that to take \
             effect{in_place}",
            pod.name_any()
        ),
    ))
}

fn named(paths: &[String]) -> String {
    let cut = |path: &String| truncate_utf8(path, MAX_PATH).to_owned();
    let first: Vec<_> = paths.iter().take(MAX_NAMED).map(cut).collect();
    let rest = paths.len() - first.len();
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests;
