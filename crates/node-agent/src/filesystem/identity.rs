/*!
The user of the image's process, resolved in the kept filesystem.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rootfs::process::ProcessError;
use rootfs::user_namespace::IdMaps;
use rootfs::{AttachError, Kept, Process, Root, attach, holders};
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::{FilesystemState, FilesystemStatus, Identity, StoppableContainerInstance};

use super::users::{self, UserError};
use super::{Filesystems, data};
use crate::instance::{Instance, status};
use crate::node::Host;
use crate::node::cgroup::container_of;
use crate::volumes::{Role, Users};

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const MAX_USER_FILE: u64 = 16 << 20;

/// Why a user is not resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    /// The template or the image has to change.
    #[error(transparent)]
    User(#[from] UserError),
    /// The files of users could not be read.
    #[error(transparent)]
    Unreadable(#[from] anyhow::Error),
}

/// Resolves the user anew when the template asks for another one. Nothing is written if it is the
/// same.
pub(crate) async fn refresh(filesystems: &Filesystems, instance: &Instance) -> Result<()> {
    let state = instance.state();
    let (Some(object), Some(provider)) = (&state.object, state.provider()) else {
        return Ok(());
    };
    let Some(user) = unresolved(object, state.filesystem()) else {
        return Ok(());
    };
    let mut guard = instance.lock_data().await;
    let (node, prefix) = (&filesystems.node, PathBuf::from(&object.spec.host_path_prefix));
    let Some(disk) = node.disks.get(&prefix) else {
        return Ok(());
    };
    let _slot = disk
        .preparations
        .acquire()
        .await
        .context("the agent is shutting down")?;
    let (host, key) = (Arc::clone(&node.host), instance.id.uid.clone());
    let process = Arc::clone(&provider.process);
    let wanted = user.clone();
    let consumers = Consumers::of(filesystems, &key).await;
    let work = move || {
        let kept = data::open(&host.root, &prefix, &key)?.context("the data is gone")?;
        resolve(&host, &process, &consumers, &kept, &wanted)
    };
    let resolved = match guard.on_disk(work).await.context("resolve the user")? {
        Ok(identity) => Ok(identity),
        Err(IdentityError::User(error)) => Err(error),
        Err(IdentityError::Unreadable(error)) => return Err(error),
    };
    status::update(&filesystems.client, instance, |state| {
        let known = state.filesystem()?;
        // The template may have changed, or the data may be gone. for another one, or have found
        // the data gone.
        if unresolved(state.object.as_ref()?, Some(known)).as_ref() != Some(&user) {
            return None;
        }
        Some(match &resolved {
            Ok(identity) => FilesystemStatus {
                state: FilesystemState::Ready,
                reason: None,
                message: None,
                identity: Some(identity.clone()),
                ..known.clone()
            },
            Err(error) => FilesystemStatus {
                state: FilesystemState::Failed,
                reason: Some(reason::USER_UNKNOWN.to_owned()),
                message: Some(error.to_string()),
                ..known.clone()
            },
        })
    })
    .await
}

/// The user that the template asks for, if it is another one than was resolved last.
fn unresolved(object: &StoppableContainerInstance, known: Option<&FilesystemStatus>) -> Option<String> {
    let known = known?;
    let user = object.spec.requested_user(known.image.as_ref()?);
    let resolved = known.identity.as_ref().map(|identity| &identity.user);
    (resolved != Some(&user)).then_some(user)
}

/// Resolves a user in the kept filesystem as a consumer sees it.
pub(super) fn resolve(
    host: &Host,
    provider: &Process,
    consumers: &Consumers,
    kept: &Kept,
    user: &str,
) -> Result<Identity, IdentityError> {
    let files = user_files(host, provider, consumers, kept)?;
    Ok(users::resolve(user, &files.passwd, &files.group)?)
}

struct UserFiles {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

/// The pods that may be on a kept filesystem, and the ids of those that have ids of their own.
pub(super) struct Consumers(Vec<(String, IdMaps)>);

// === impl Consumers ===

impl Consumers {
    /// Those of the instance with this UID.
    pub(super) async fn of(filesystems: &Filesystems, uid: &str) -> Self {
        let mut pods = Vec::new();
        for volume in filesystems.volumes.of_instance(uid) {
            if volume.record.role != Role::Consumer {
                continue;
            }
            match volume.id_maps(&filesystems.node.cri).await {
                Ok(Some(maps)) => pods.push((volume.record.pod.uid.clone(), maps.clone())),
                Ok(None) => {}
                // It may not have started. If it has, its root is not read.
                Err(error) => tracing::debug!(pod = %volume.record.pod, %error, "user namespace"),
            }
        }
        Self(pods)
    }

    /// The user namespace of a process that has the filesystem mounted, if what it shows can be
    /// believed.
    fn users_of(&self, host: &Host, process: &Process) -> Result<Option<Users>, ProcessError> {
        let cgroup = process.cgroup(&host.proc)?;
        let pod = self
            .0
            .iter()
            .find(|(uid, _)| container_of(&cgroup, uid).is_some());
        Users::of(host, process, pod.map(|(_, maps)| maps))
    }
}

fn user_files(host: &Host, provider: &Process, consumers: &Consumers, kept: &Kept) -> Result<UserFiles> {
    let read = |root: &Root| -> Result<UserFiles> {
        let read = |path: &str| root.read(Path::new(path), MAX_USER_FILE);
        Ok(UserFiles {
            passwd: read("etc/passwd")?.unwrap_or_default(),
            group: read("etc/group")?.unwrap_or_default(),
        })
    };
    // A running consumer's own root is the one true view; a second overlay beside it is not.
    for holder in holders::find(&host.proc, kept.key())? {
        let root = || {
            let Some(users) = consumers.users_of(host, &holder.process)? else {
                return Ok(None);
            };
            attach::root_of(&host.proc, &holder.process, users.namespace(), kept.key())
        };
        match root() {
            Ok(Some(root)) => return read(&root),
            // A process whose mounts have the same names, or one that ended.
            Ok(None) | Err(AttachError::Process(ProcessError::Gone)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let _unused = data::lock_unused(host, kept)?;
    attach::with_view(&host.proc, &host.namespace, provider, kept, read)?
}
