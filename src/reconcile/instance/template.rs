/*!
Templates of which no pod can be made: too large, no pod template, or one that
the API server does not take.

Schema and webhook refuse them. They let objects through that are older than
both, or for which the API server did not answer in time. The controller marks
such an object: it can be stopped and deleted, and delays no other object. A
template that runs was created strictly, so it is known to be good; the
controller tries that of a stopped object once.
*/

use std::time::Duration;

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::ANNOTATION_TEMPLATE_HASH;
use stoppablecontainer_api::{
    PodTemplate, Provider, StoppableContainerInstance, TemplateCheck, TemplateError,
};

use crate::draft::Draft;
use crate::problem::Problem;
use crate::reconcile::Context;
use crate::reconcile::instance::plan::{Observed, Slot};
use crate::reconcile::pods::Trouble;
use crate::reconcile::pods::consumer::consumer_hash;
use crate::trial::{self, Obstacle};

/// How long the API server may take to try a pod.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest text about a template, in characters.
const LONGEST: usize = 4_096;

/// Time until the API server is asked again after it gave no answer.
const AGAIN: Duration = Duration::from_mins(1);

/// Why nothing can be made from an instance's spec, on every cluster.
pub fn trouble(instance: &StoppableContainerInstance) -> Option<Trouble> {
    of(&instance.spec.template, &instance.spec.provider)
}

/// The same for a template and a provider.
pub fn of(template: &PodTemplate, provider: &Provider) -> Option<Trouble> {
    let problem = template.problem().cloned();
    problem.or_else(|| provider.decode().err()).as_ref().map(told)
}

/// An error as a condition has it.
fn told(error: &TemplateError) -> Trouble {
    let reason = match error {
        TemplateError::TooLarge { .. } => reason::TEMPLATE_TOO_LARGE,
        TemplateError::Invalid { .. } => reason::TEMPLATE_INVALID,
    };
    Trouble::new(reason, error.to_string())
}

/// What the API server found wrong with the present template.
pub fn found(observed: &Observed) -> Option<Trouble> {
    let check = observed.template_check.as_ref()?;
    let problem = check.problem.as_ref()?;
    let current = check.template_hash == consumer_hash(&observed.instance);
    current.then(|| Trouble::new(reason::TEMPLATE_INVALID, problem.clone()))
}

/// The check of the template for the status. A consumer that exists was created from it strictly.
pub fn known(observed: &Observed) -> Option<TemplateCheck> {
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

/// Tries the template of a stopped object, unless that was done. Returns when to ask again if the API server did not say.
pub(crate) async fn check(context: &Context, observed: &mut Observed) -> Option<Duration> {
    let instance = &observed.instance;
    let stopped = !instance.spec.running && !observed.deleting() && matches!(observed.consumer, Slot::Free);
    if !stopped || trouble(instance).is_some() {
        return None;
    }
    let template_hash = consumer_hash(instance);
    let known = observed.template_check.as_ref();
    if known.is_some_and(|check| check.template_hash == template_hash) {
        return None;
    }
    let (mut problems, pod) = {
        let draft = Draft::of(&instance.spec.template);
        (draft.problems, trial::pod(&instance.name_any(), &draft.template))
    };
    if let Some(pod) = pod {
        let namespace = instance.namespace().unwrap_or_default();
        let opinion = trial::ask(&context.client, &namespace, &pod, PATIENCE).await;
        if let Some(Obstacle::NotAsked(why)) = opinion.obstacle {
            tracing::info!(
                name = instance.name_any(),
                namespace,
                why,
                "a template was not checked; it is tried again"
            );
            return Some(AGAIN);
        }
        problems.extend(opinion.problems);
    }
    observed.template_check = Some(TemplateCheck {
        template_hash,
        problem: (!problems.is_empty()).then(|| Problem::list(&problems).chars().take(LONGEST).collect()),
    });
    None
}
