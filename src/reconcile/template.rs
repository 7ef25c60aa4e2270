/*!
Templates that cannot be worked on: too large, or no pod template. Schema and
webhook keep them out; this is for objects from before either. Such an object is
marked, can be stopped and deleted, and costs nobody else anything.
*/

use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{StoppableContainerInstance, TemplateError};

use super::pods::Trouble;

/// Why nothing can be made from what an instance says.
pub fn trouble(instance: &StoppableContainerInstance) -> Option<Trouble> {
    let spec = &instance.spec;
    let template = spec.template.problem().cloned();
    template
        .or_else(|| spec.provider.decode().err())
        .as_ref()
        .map(told)
}

/// An error as a condition has it.
pub fn told(error: &TemplateError) -> Trouble {
    let reason = match error {
        TemplateError::TooLarge { .. } => reason::TEMPLATE_TOO_LARGE,
        TemplateError::Invalid { .. } => reason::TEMPLATE_INVALID,
    };
    Trouble::new(reason, error.to_string())
}
