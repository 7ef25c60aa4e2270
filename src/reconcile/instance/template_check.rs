/*!
Templates of which no pod can be made: too large, no pod template, or one that the API server does
not take.

Schema and webhook refuse them. They let objects through that are older than both, or for which the
API server did not answer in time. The controller marks such an object: it can be stopped and
deleted, and delays no other object. A template that runs was created strictly, so it is known to be
good; the controller tries that of a stopped object once.
*/

use std::time::Duration;

use kube::ResourceExt;
use stoppablecontainer_api::names::ANNOTATION_TEMPLATE_HASH;
use stoppablecontainer_api::{TemplateCheck, truncate_utf8};

use crate::dry_run;
use crate::dry_run::Inconclusive;
use crate::field_error::FieldError;
use crate::partial_template::PartialTemplate;
use crate::reconcile::context::Context;
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::pods::{consumer_hash, template};

/// How long the API server may take to check a pod.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest text about a template, in bytes.
const LONGEST: usize = 4_096;

/// Time until the controller asks again if the API server did not answer.
const AGAIN: Duration = Duration::from_mins(1);

/// The check of the template for the status. A consumer that exists was created from it strictly.
pub(super) fn known(observed: &Observed) -> Option<TemplateCheck> {
    let made_from = observed
        .consumer
        .pod()
        .and_then(|pod| pod.annotations().get(ANNOTATION_TEMPLATE_HASH));
    match made_from {
        Some(hash) if *hash == consumer_hash(&observed.instance) => Some(TemplateCheck {
            template_hash: hash.clone(),
            problem: None,
        }),
        _ => observed.template_check.clone(),
    }
}

/// Checks the template of a stopped object, unless that was done. Returns when to ask again if the
/// API server did not answer.
pub(crate) async fn check(context: &Context, observed: &mut Observed) -> Option<Duration> {
    let instance = &observed.instance;
    let stopped = !instance.spec.running && !observed.deleting() && matches!(observed.consumer, Slot::Free);
    if !stopped || template::blocking_cause(instance).is_some() {
        return None;
    }
    let template_hash = consumer_hash(instance);
    let known = observed.template_check.as_ref();
    if known.is_some_and(|check| check.template_hash == template_hash) {
        return None;
    }
    let (mut problems, pod) = {
        let draft = PartialTemplate::of(&instance.spec.template);
        (
            draft.problems,
            dry_run::pod(&instance.name_any(), &draft.template),
        )
    };
    if let Some(pod) = pod {
        let namespace = instance.namespace().unwrap_or_default();
        let opinion = dry_run::ask(&context.client, &namespace, &pod, PATIENCE).await;
        if let Some(Inconclusive::NoAnswer(why)) = opinion.obstacle {
            tracing::info!(
                name = instance.name_any(),
                namespace,
                why,
                "the API server did not check a template; the controller asks again"
            );
            return Some(AGAIN);
        }
        problems.extend(opinion.problems);
    }
    observed.template_check = Some(TemplateCheck {
        template_hash,
        problem: (!problems.is_empty())
            .then(|| truncate_utf8(&FieldError::list(&problems), LONGEST).to_owned()),
    });
    None
}
