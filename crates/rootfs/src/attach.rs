/*!
The whole of one start: overlay, namespaces, mounts, change-over.
*/

mod look;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;

use crate::apply::{self, ApplyError};
use crate::holders::{self, Holder, HoldersError, Use};
use crate::layers::{Kind, Layers, LayersError};
use crate::namespace::NamespaceThread;
use crate::overlay::{LowerdirApi, Overlay, OverlayError, Upper};
use crate::plan::Plan;
use crate::process::{Proc, Process, ProcessError};
use crate::runtime_layer::{self, Repeat, RuntimeLayerError};
use crate::store::{Kept, StoreError};
use crate::table::{Mount, Table, ends_with};
use crate::user_namespace::{RootIds, attach_in_copy};
use crate::{Namespace, Root, UserNamespace};

pub use self::look::{is_attached, is_left_behind, root_of};

/// A container to move, and its kept filesystem.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The node's /proc.
    pub proc: &'a Proc,
    /// The node's mount namespace, in which the store and the layers are.
    pub node: &'a Namespace,
    /// A process of the container that runs the image.
    pub image: &'a Process,
    /// A process of the container to move.
    pub container: &'a Process,
    /// The user namespace of the container's pod. `None` if that is the caller's, as the node's is.
    pub users: Option<&'a UserNamespace>,
    /// The kept filesystem.
    pub kept: &'a Kept,
    /// What hooks of the runtime could not do to the container's root.
    pub repeat: Repeat<'a>,
}

/// What tests change about an [`attach`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Hooks<'a> {
    /// Called with the name of every step when it is done. Tests make the work end there, at each
    /// step in turn.
    pub(crate) observer: Option<&'a (dyn Fn(&'static str) + Sync)>,
    /// How the kernel gets the layers, as if it supported no other way.
    pub(crate) api: Option<LowerdirApi>,
}

/// How a container came to its kept filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// By this call.
    Now,
    /// It was there.
    Already,
}

/// A container that was not moved.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Processes of another container are still on the kept filesystem.
    #[error("still in use by process {}", .0.first().map_or(0, |holder| holder.process.id()))]
    Held(Vec<Holder>),
    /// The kernel still has an overlay on it, but no process shows it: it is about to go, or a
    /// process hides it.
    #[error("the kernel still uses the kept filesystem")]
    Busy,
    /// The kernel does not say whether an overlay uses it, so it counts as used.
    #[error(
        "the kernel does not say whether the kept filesystem is in use: it made the overlay of the check without \
         an index, maybe because the disk is full; the kernel log of the node has the reason"
    )]
    UseUnknown,
    /// The process is not in a container of its own.
    #[error("the process shares the node's mount namespace")]
    NotAContainer,
    /// It is not in the user namespace of its pod. In one that a process of the pod made, the names
    /// of mounts are those that the process chose.
    #[error("the container is not in the user namespace of its pod")]
    UserNamespace,
    /// Files of a layer or of the data cannot have other owners.
    #[error(
        "cannot give files the owners of a pod with hostUsers: false: {what} needs idmapped mounts, which the kernel \
         has on ext4, xfs and btrfs from Linux 5.19 on"
    )]
    Unmappable {
        /// What cannot be mounted.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A mount covers the container's root: its processes would stay on the root below.
    #[error("something is mounted over the container's root (file system type {0:?})")]
    CoveredRoot(OsString),
    /// It is on another kept filesystem.
    #[error("the container is already on another kept filesystem")]
    Foreign,
    /// Its disk takes no writes. The kernel makes such an overlay all the same, and read-only: the
    /// container would start and fail at its first write.
    #[error("the disk of the kept filesystem is not writable: it is mounted read-only, or broken")]
    ReadOnly,
    /// The data is not there.
    #[error("the kept filesystem has no data")]
    Missing,
    /// After the change-over the process is not where it should be.
    #[error("the process did not move to the kept filesystem; it has its own root directory")]
    LeftBehind,
    /// About the process.
    #[error("cannot examine the container")]
    Process(#[from] ProcessError),
    /// About the image.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// About the data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The check for users failed.
    #[error(transparent)]
    Holders(#[from] HoldersError),
    /// The overlay.
    #[error("cannot mount the kept filesystem")]
    Overlay(#[from] OverlayError),
    /// What the container runtime did to the container's root.
    #[error("cannot take over what the container runtime did to the container's root")]
    Runtime(#[source] RuntimeLayerError),
    /// The container.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Another step.
    #[error("cannot {0}")]
    System(&'static str, #[source] Errno),
}

/// Moves a container onto its kept filesystem. Blocks for some milliseconds.
///
/// # Guarantees
///
/// - Whatever way an earlier call ended, this one brings the container to the same state.
/// - No overlay is made while another one has the same upper directory ([`AttachError::Held`],
///   [`AttachError::Busy`]).
/// - On an error before the change-over the container is as it was.
/// - The node's mount table does not change.
pub fn attach(request: Request<'_>) -> Result<Attached, AttachError> {
    attach_with_hooks(request, Hooks::default())
}

pub(crate) fn attach_with_hooks(request: Request<'_>, hooks: Hooks<'_>) -> Result<Attached, AttachError> {
    NamespaceThread::run(|thread| request.run(thread, hooks)).map_err(at("start a thread"))?
}

/// Work inside a private, read-only view of the kept filesystem, merged from upper directory and
/// image as a consumer would see it. The kept filesystem must not be in use meanwhile.
pub fn with_view<T: Send>(
    proc: &Proc,
    node: &Namespace,
    image: &Process,
    kept: &Kept,
    work: impl FnOnce(&Root) -> T + Send,
) -> Result<T, AttachError> {
    let view = |thread: &NamespaceThread| {
        let of = |layers: &Layers, kept: &Kept| {
            let upper = kept.upper()?;
            let lower = std::iter::once(upper.as_fd())
                .chain(layers.directories())
                .collect();
            let overlay = Overlay {
                lower,
                upper: None,
                exclusive: false,
                volatile: false,
                context: None,
            };
            Ok(overlay.mount(thread)?)
        };
        let overlay = on_image(thread, proc, node, image, kept, None, of)?;
        Ok(work(&Root::new(overlay)))
    };
    NamespaceThread::run(view).map_err(at("start a thread"))?
}

/// Work with the image alone, read-only and without what is kept. The kept filesystem may be in use
/// meanwhile.
pub fn with_image<T: Send>(
    proc: &Proc,
    node: &Namespace,
    image: &Process,
    kept: &Kept,
    work: impl FnOnce(&Root) -> T + Send,
) -> Result<T, AttachError> {
    let look = |thread: &NamespaceThread| {
        let of = |layers: &Layers, _: &Kept| Ok(runtime_layer::image_root(thread, layers)?);
        let root = on_image(thread, proc, node, image, kept, None, of)?;
        Ok(work(&Root::new(root)))
    };
    NamespaceThread::run(look).map_err(at("start a thread"))?
}

// === impl Hooks ===

impl Hooks<'_> {
    pub(crate) fn done(&self, step: &'static str) {
        if let Some(observer) = self.observer {
            observer(step);
        }
    }
}

// === impl Request ===

impl Request<'_> {
    fn run(&self, thread: &NamespaceThread, hooks: Hooks<'_>) -> Result<Attached, AttachError> {
        let Self {
            proc,
            node,
            image,
            container,
            users,
            kept,
            repeat,
        } = *self;
        let done = |step| hooks.done(step);
        let _locked = kept.lock()?;
        let namespace = container.mount_namespace(proc)?;
        let theirs = namespace
            .identity()
            .map_err(at("identify the container's mount namespace"))?;
        if theirs
            == node
                .identity()
                .map_err(at("identify the node's mount namespace"))?
        {
            return Err(AttachError::NotAContainer);
        }
        let learn = || {
            let seen = (container.working_directory(proc)?, container.mounts(proc)?);
            Ok((seen, container.id_maps(proc)?))
        };
        let ((working_directory, seen), ids) = container
            .read_if_in(proc, users, learn)?
            .ok_or(AttachError::UserNamespace)?;
        let mapping = match users {
            Some(users) => {
                let root = ids.root().ok_or(AttachError::UserNamespace)?;
                Some(Mapping { users, root })
            }
            None => None,
        };
        thread
            .enter(&namespace)
            .map_err(at("enter the container's mount namespace"))?;
        apply::clean(thread, proc, &seen)?;
        done("clean up after an earlier attempt");
        match kept_root(&seen) {
            Some(root) if is_of(root, kept.key()) => return Ok(Attached::Already),
            Some(_) => return Err(AttachError::Foreign),
            None => {}
        }
        // From here on it is looked at; a file system that a tenant mounted there may not answer.
        let table = proc.own_mounts()?;
        let root = table.root().cloned().ok_or(ApplyError::NoRoot)?;
        if container.root_mount(proc)? != root.id {
            return Err(AttachError::CoveredRoot(root.fs_type));
        }

        let plan = Plan::new(&table).ok_or(ApplyError::NoRoot)?;
        let by_runtime = runtime_layer::Seen::read(
            thread,
            proc,
            working_directory.as_deref(),
            &plan,
            apply::STAGING,
            repeat,
        )?;

        if !kept.has_upper()? {
            return Err(AttachError::Missing);
        }
        kept.require_suitable()?;
        if is_read_only(kept)? {
            return Err(AttachError::ReadOnly);
        }
        thread
            .enter(node)
            .map_err(at("enter the node's mount namespace"))?;
        let asked = holders::probe(thread, kept).map_err(|error| match error {
            // Since the look at it.
            HoldersError::Store(StoreError::System {
                source: Errno::ROFS, ..
            }) => AttachError::ReadOnly,
            error => error.into(),
        });
        match asked? {
            Use::Free => {}
            Use::Unknown => return Err(AttachError::UseUnknown),
            Use::Held => {
                let holders = holders::find(proc, kept.key())?;
                return Err(if holders.is_empty() {
                    AttachError::Busy
                } else {
                    AttachError::Held(holders)
                });
            }
        }
        done("prove that the data is not in use");
        let (upper, work) = (format!("{}/upper", kept.key()), format!("{}/work", kept.key()));
        // The container's processes may use what has the label of the root that the runtime gave
        // them.
        let context = seen.root().and_then(Mount::context);
        let overlay = on_image(thread, proc, node, image, kept, mapping, |layers, here| {
            let runtime = runtime_layer::renew(thread, proc, layers, here, by_runtime.as_ref(), hooks)?;
            let runtime = runtime.iter().map(AsFd::as_fd);
            let overlay = Overlay {
                lower: runtime.chain(layers.directories()).collect(),
                upper: Some(Upper {
                    base: here.store(),
                    upper: &upper,
                    work: &work,
                }),
                exclusive: false,
                volatile: false,
                context: context.as_deref(),
            };
            Ok(match hooks.api {
                None => overlay.mount(thread),
                Some(api) => overlay.mount_with_api(thread, api),
            }?)
        })?;
        if is_read_only(&overlay)? {
            return Err(AttachError::ReadOnly);
        }
        done("make the overlay");
        thread
            .enter(&namespace)
            .map_err(at("enter the container's mount namespace"))?;
        apply::apply(thread, proc, overlay, working_directory.as_deref(), &done)?;
        match kept_root(&container.mounts(proc)?) {
            Some(root) if is_of(root, kept.key()) => Ok(Attached::Now),
            _ => Err(AttachError::LeftBehind),
        }
    }
}

/// Makes an overlay of the layers of an image and a kept filesystem, both as the thread's namespace
/// then has them. Where the kernel does not support so many layers, the root of the container that
/// runs the image is the only layer.
fn on_image(
    thread: &NamespaceThread,
    proc: &Proc,
    node: &Namespace,
    image: &Process,
    kept: &Kept,
    mapping: Option<Mapping<'_>>,
    overlay: impl Fn(&Layers, &Kept) -> Result<OwnedFd, AttachError>,
) -> Result<OwnedFd, AttachError> {
    let overlay = |layers: Layers| {
        let here = kept.in_current_namespace(layers.kind() == Kind::ContainerRoot)?;
        match mapping {
            Some(mapping) => {
                let (layers, here) = mapping.apply(thread, &layers, &here)?;
                overlay(&layers, &here)
            }
            None => overlay(&layers, &here),
        }
    };
    let layers = Layers::of(thread, proc, node, image)?;
    let kind = layers.kind();
    match overlay(layers) {
        Err(AttachError::Overlay(OverlayError::TooManyLayers(count))) if kind == Kind::Directories => {
            tracing::debug!(
                count,
                "too many layers for this kernel, using the container's root"
            );
        }
        result => return result,
    }
    overlay(Layers::of_root(thread, proc, node, image)?)
}

/// The owners that files are to have: those that a user namespace sees.
#[derive(Clone, Copy)]
struct Mapping<'a> {
    users: &'a UserNamespace,
    root: RootIds,
}

// === impl Mapping ===

impl Mapping<'_> {
    /// Layers and data with these owners, where an overlay may have them. From here on, what the
    /// thread makes belongs to the root of the user namespace: the overlay makes files with the
    /// credentials of its maker.
    fn apply(
        self,
        thread: &NamespaceThread,
        layers: &Layers,
        kept: &Kept,
    ) -> Result<(Layers, Kept), AttachError> {
        let failed = |what| move |source| AttachError::Unmappable { what, source };
        let layers = layers
            .mapped(self.users)
            .map_err(failed("a layer of the image"))?;
        let kept = kept
            .mapped(self.users)
            .map_err(failed("the directory of the data"))?;
        let mounts = layers.directories().chain([kept.store()]);
        attach_in_copy(thread, mounts).map_err(at("attach the layers"))?;
        thread
            .act_as(self.root)
            .map_err(at("act as the root of the container's user namespace"))?;
        Ok((layers, kept))
    }
}

impl From<RuntimeLayerError> for AttachError {
    fn from(error: RuntimeLayerError) -> Self {
        match error {
            // As about the overlay of the container itself: there may be another way to make it.
            RuntimeLayerError::Overlay(error) => Self::Overlay(error),
            error => Self::Runtime(error),
        }
    }
}

/// The kept root in a table, even where an old root still lies on it.
fn kept_root(table: &Table) -> Option<&Mount> {
    table.mounts().iter().find(|m| is_kept_root(m))
}

fn is_kept_root(mount: &Mount) -> bool {
    mount.mountpoint.as_os_str() == "/" && mount.is_kept_root()
}

fn is_of(root: &Mount, key: &str) -> bool {
    let upper = format!("{key}/upper");
    root.super_option("upperdir")
        .any(|option| ends_with(&option, &upper))
}

fn is_read_only(directory: impl AsFd) -> Result<bool, AttachError> {
    let status = fstatvfs(directory).map_err(at("examine the disk of the kept filesystem"))?;
    Ok(status.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn at(what: &'static str) -> impl Fn(Errno) -> AttachError {
    move |errno| AttachError::System(what, errno)
}
