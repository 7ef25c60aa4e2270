/*!
The image that the data was made with, by digest.

A tag may be moved. The status records the digest that the template's name meant when the agent put
data on it, and the controller makes every later provider from that digest as long as the template
has the same name: only an edit changes the image under the data.
*/

use kube::ResourceExt;
use stoppablecontainer_api::names::ANNOTATION_IMAGE;
use stoppablecontainer_api::{PinnedImage, StoppableContainerInstanceStatus, same_repository};

use crate::reconcile::conditions::Cause;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods;
use crate::reconcile::pods::main_image;

/// The kubelet's reasons for an image that it cannot get.
const IMAGE_PULL_FAILURES: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"];

/// The image of an observed pod. An image without a digest in the repository that template or pod
/// name (loaded into the node, or pulled by another name) cannot be pulled by digest, and is used
/// by its name.
pub(crate) fn pinned(observed: &Observed, old: &StoppableContainerInstanceStatus) -> Option<PinnedImage> {
    let present = || {
        let provider = observed.provider.pod()?;
        let filesystem = old.ready_filesystem()?;
        if provider.metadata.uid != filesystem.provider_pod_uid {
            return None;
        }
        let name = provider.annotations().get(ANNOTATION_IMAGE)?;
        let digest = &filesystem.image.as_ref()?.repo_digest;
        let mut names = [Some(name.as_str()), main_image(provider)].into_iter().flatten();
        let known = !digest.is_empty() && names.any(|named| same_repository(named, digest));
        let before = || old.image.clone().filter(|before| before.name == *name);
        Some(if known {
            Some(PinnedImage {
                name: name.clone(),
                digest: digest.clone(),
            })
        } else {
            before()
        })
    };
    present().unwrap_or_else(|| old.image.clone())
}

/// What the user may do if the digest cannot be pulled any more.
pub(crate) fn with_recovery_hint(observed: &Observed, why: Cause) -> Cause {
    let Some(digest) = pods::pinned::digest(&observed.instance) else {
        return why;
    };
    // A registry's webhook may have put another repository in front.
    let exact = digest.rsplit('@').next().unwrap_or_default();
    let image = observed.provider.pod().and_then(|pod| main_image(pod));
    let of_it = image.is_some_and(|image| image.ends_with(exact));
    if !of_it || !IMAGE_PULL_FAILURES.contains(&why.reason.as_str()) {
        return why;
    }
    let name = observed.instance.spec.main_image();
    let message = format!(
        "{}. The files were made with {name} at {digest}, and the controller does not use another image with them: make this \
         image available again in its registry or on the node. If it no longer exists, name another image in the template; \
         the condition FilesystemReady then says how to keep the files, or how to start without them",
        why.message.trim_end_matches('.')
    );
    Cause { message, ..why }
}

#[cfg(test)]
mod tests;
