//! The image that a later provider is made of.

use stoppablecontainer_api::StoppableContainerInstance;

/// The image that the provider of `instance` is made of instead of the one that the template names.
pub(crate) fn digest(instance: &StoppableContainerInstance) -> Option<&str> {
    let pinned = instance.status.as_ref()?.image.as_ref()?;
    (pinned.name == instance.spec.main_image()).then_some(&pinned.digest)
}
