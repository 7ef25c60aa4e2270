/*!
What is known of images from filesystems that were made of them on this node: their config, and the
user that it names.
*/

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use stoppablecontainer_api::{Identity, ImageFacts};

/// Most entries. The oldest one goes.
const MAX_ENTRIES: usize = 256;
/// Longest config in an entry, as JSON, in bytes. All entries together take a few megabytes.
const MAX_BYTES: usize = 16 << 10;

/// The images, by namespace and name.
///
/// A namespace profits only from its own containers. The kubelet may check at each start whether a
/// pod has the credentials for an image that the node has
/// (`imagePullCredentialsVerificationPolicy`). The config of an image must not be shown to a
/// namespace without them.
#[derive(Debug, Default)]
pub(super) struct KnownImages(Mutex<VecDeque<Known>>);

#[derive(Clone, Debug)]
struct Known {
    namespace: String,
    name: String,
    image: ImageFacts,
    identity: Identity,
}

// === impl KnownImages ===

impl KnownImages {
    /// Takes what a new filesystem of this image was found to be. An identity of an earlier image
    /// of the name is forgotten.
    pub(super) fn remember(&self, namespace: &str, name: &str, image: &ImageFacts, identity: &Identity) {
        let size = serde_json::to_vec(image).map_or(usize::MAX, |json| json.len());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| {
            let same = known.namespace == namespace && known.name == name;
            !same || (known.image == *image && known.identity.user != identity.user)
        });
        if size > MAX_BYTES {
            return;
        }
        if known.len() == MAX_ENTRIES {
            known.pop_front();
        }
        known.push_back(Known {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            image: image.clone(),
            identity: identity.clone(),
        });
    }

    /// What is known of the image that a template of the namespace names, for the user that
    /// `requested` returns for the image.
    pub(super) fn find(
        &self,
        namespace: &str,
        name: &str,
        requested: impl Fn(&ImageFacts) -> String,
    ) -> Option<(ImageFacts, Identity)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|known| {
            known.namespace == namespace
                && known.name == name
                && known.identity.user == requested(&known.image)
        });
        found.map(|known| (known.image.clone(), known.identity.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, user: &str) -> ImageFacts {
        ImageFacts {
            id: id.to_owned(),
            user: user.to_owned(),
            ..ImageFacts::default()
        }
    }

    fn identity(user: &str, uid: i64) -> Identity {
        serde_json::from_value(serde_json::json!({ "user": user, "uid": uid, "gid": 0 })).unwrap()
    }

    fn of_image(image: &ImageFacts) -> String {
        image.user.clone()
    }

    #[test]
    fn a_namespace_does_not_see_the_images_of_another() {
        let known = KnownImages::default();
        known.remember("a", "app:1", &image("sha256:1", "app"), &identity("app", 7));
        assert_eq!(known.find("b", "app:1", of_image), None);
        assert_eq!(known.find("a", "app:2", of_image), None);
        let (found, user) = known.find("a", "app:1", of_image).unwrap();
        assert_eq!((found.id.as_str(), user.uid), ("sha256:1", 7));
    }

    #[test]
    fn each_user_of_an_image_is_known_and_an_image_replaces_the_one_of_its_name() {
        let known = KnownImages::default();
        let of = |user: &'static str| {
            let found = known.find("a", "app:1", |_| user.to_owned());
            found.map(|(image, identity)| (image.id, identity.uid))
        };
        known.remember("a", "app:1", &image("sha256:1", ""), &identity("", 0));
        known.remember("a", "app:1", &image("sha256:1", ""), &identity("7", 7));
        assert_eq!(of(""), Some(("sha256:1".to_owned(), 0)));
        assert_eq!(of("7"), Some(("sha256:1".to_owned(), 7)));
        known.remember("a", "app:1", &image("sha256:2", ""), &identity("", 0));
        assert_eq!(of(""), Some(("sha256:2".to_owned(), 0)));
        assert_eq!(of("7"), None);
    }

    #[test]
    fn i18_number_and_size_are_bounded() {
        let known = KnownImages::default();
        for number in 0..=MAX_ENTRIES {
            known.remember(
                "a",
                &format!("app:{number}"),
                &image("sha256:1", ""),
                &identity("", 0),
            );
        }
        let is_known = |name: &str| known.find("a", name, of_image).is_some();
        assert!(!is_known("app:0") && is_known("app:1") && is_known(&format!("app:{MAX_ENTRIES}")));
        let huge = ImageFacts {
            env: vec!["x".repeat(MAX_BYTES)],
            ..image("sha256:1", "")
        };
        known.remember("a", "app:1", &huge, &identity("", 0));
        assert!(!is_known("app:1"));
    }
}
