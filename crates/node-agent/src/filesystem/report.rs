/*!
What preparing a filesystem writes into its status, in the name of one provider.
*/

use anyhow::Result;
use kube::Client;
use stoppablecontainer_api::{FilesystemState, FilesystemStatus, Identity, ImageFacts};

use super::Filesystems;
use super::failure::Failure;
use super::recovery;
use crate::instance::{Instance, status};

/// Writes the status for the provider that asks.
pub(crate) struct Reporter<'a> {
    client: &'a Client,
    node_name: &'a str,
    instance: &'a Instance,
    provider_pod_uid: &'a str,
}

/// A filesystem that a consumer can start on.
pub(super) struct Prepared {
    pub(super) image: ImageFacts,
    pub(super) identity: Identity,
    /// See [`FilesystemStatus::store_id`].
    pub(super) store: Option<String>,
    /// Whether what the status has of before still holds: the usage, the offer to recover, and the
    /// failed write.
    pub(super) keeps_usage: bool,
    pub(super) keeps_offer: bool,
    pub(super) keeps_write_failed: bool,
}

// === impl Reporter ===

impl<'a> Reporter<'a> {
    /// Reports for the provider's pod with this UID.
    pub(crate) fn new(
        filesystems: &'a Filesystems,
        instance: &'a Instance,
        provider_pod_uid: &'a str,
    ) -> Self {
        Self {
            client: &filesystems.client,
            node_name: &filesystems.node.name,
            instance,
            provider_pod_uid,
        }
    }

    /// Reports that there will be data, unless the status has any report.
    pub(super) async fn preparing(&self) -> Result<()> {
        status::update(self.client, self.instance, |state| {
            let unknown = state.filesystem().is_none();
            unknown.then(|| self.status(FilesystemState::Preparing, None))
        })
        .await
    }

    /// Reports that there will be data, and what is known of it, unless the status has any report.
    pub(super) async fn announced(&self, image: &ImageFacts, identity: &Identity) -> Result<()> {
        status::update(self.client, self.instance, |state| {
            let unknown = state.filesystem().is_none();
            unknown.then(|| FilesystemStatus {
                announced: true,
                image: Some(image.clone()),
                identity: Some(identity.clone()),
                ..self.status(FilesystemState::Preparing, None)
            })
        })
        .await
    }

    /// Reports what keeps the filesystem from being prepared for the first time, and may pass.
    pub(crate) async fn obstacle(&self, obstacle: &str) -> Result<()> {
        status::update(self.client, self.instance, |state| {
            let known = state.filesystem();
            let first = known.is_none_or(|known| known.state == FilesystemState::Preparing);
            first.then(|| FilesystemStatus {
                message: Some(obstacle.to_owned()),
                ..self.status(FilesystemState::Preparing, known)
            })
        })
        .await
    }

    /// Reports a failure, with what the user may decide about it.
    pub(crate) async fn failed(&self, failure: &Failure) -> Result<()> {
        status::update(self.client, self.instance, |state| {
            let known = state.filesystem();
            Some(FilesystemStatus {
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message.clone()),
                recovery: recovery::offer(known, failure),
                ..self.status(FilesystemState::Failed, known)
            })
        })
        .await
    }

    /// Reports that a consumer can start.
    pub(super) async fn ready(&self, prepared: &Prepared) -> Result<()> {
        status::update(self.client, self.instance, |state| {
            let known = state.filesystem();
            let status = self.status(FilesystemState::Ready, known);
            Some(FilesystemStatus {
                store_id: prepared.store.clone(),
                image: Some(prepared.image.clone()),
                identity: Some(prepared.identity.clone()),
                usage: status.usage.filter(|_| prepared.keeps_usage),
                // Of a filesystem that is too large; another task makes the offer and takes it
                // back.
                recovery: known
                    .filter(|known| known.state == FilesystemState::Ready && prepared.keeps_offer)
                    .and_then(|known| known.recovery.clone()),
                write_failed: status
                    .write_failed
                    .clone()
                    .filter(|_| prepared.keeps_write_failed),
                ..status
            })
        })
        .await
    }

    /// A status in this state, with what is known already. What the data was made with stays on
    /// record whatever happens. What was only announced does not: no data was made with it.
    fn status(&self, state: FilesystemState, known: Option<&FilesystemStatus>) -> FilesystemStatus {
        let made = known.filter(|known| !known.announced);
        FilesystemStatus {
            state,
            node_name: self.node_name.to_owned(),
            provider_pod_uid: Some(self.provider_pod_uid.to_owned()),
            announced: false,
            reason: None,
            message: None,
            store_id: known.and_then(|known| known.store_id.clone()),
            image: made.and_then(|made| made.image.clone()),
            identity: made.and_then(|made| made.identity.clone()),
            usage: known.and_then(|known| known.usage),
            recovery: None,
            disk_low: known.and_then(|known| known.disk_low.clone()),
            blocked: known.and_then(|known| known.blocked.clone()),
            write_failed: known.and_then(|known| known.write_failed.clone()),
        }
    }
}
