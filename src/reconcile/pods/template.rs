/*!
Templates of which no pod can be made: too large, or no pod template.

Schema and webhook refuse them, but not objects that are older than both.
*/

use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{PodTemplate, Provider, StoppableContainerInstance, TemplateError};

use crate::reconcile::conditions::Cause;

/// Why nothing can be made from an instance's spec, on every cluster.
pub(crate) fn blocking_cause(instance: &StoppableContainerInstance) -> Option<Cause> {
    of(&instance.spec.template, &instance.spec.provider)
}

/// The same for a template and a provider.
pub(crate) fn of(template: &PodTemplate, provider: &Provider) -> Option<Cause> {
    let problem = template.problem().cloned();
    problem.or_else(|| provider.decode().err()).as_ref().map(told)
}

/// An error as a condition has it.
fn told(error: &TemplateError) -> Cause {
    let reason = match error {
        TemplateError::TooLarge { .. } => reason::TEMPLATE_TOO_LARGE,
        TemplateError::Invalid { .. } => reason::TEMPLATE_INVALID,
    };
    Cause::new(reason, error.to_string())
}
