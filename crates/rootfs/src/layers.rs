/*!
Finds the read-only layers of an image from a container that runs it.

If the container's root is an overlay, its mount options name the layers' directories on the node,
and those are used as layers again. (An overlay on the container's root would be a second level, and
the kernel allows no third; then processes in the container could not use overlays.) If the
directories are not available (another snapshotter, a runtime that hides them, more layers than an
older kernel supports), the container's root is the only layer.

The names are opened on the node, so they must come from the runtime: a process that may mount could
put an overlay at its root whose layers have names of the node's directories. A runtime mounts the
root of a container in the node's mount namespace and gives the container a copy of that mount
(containerd below the directory of its task, CRI-O below that of its storage). No container can
mount in the node's namespace. So the names are read there, from a mount of the file system that is
the container's root; without such a mount no name is used.
*/

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::namespace::NamespaceThread;
use crate::process::{Proc, ProcessError};
use crate::table::Mount;
use crate::user_namespace::{UserNamespace, attach_in_copy};
use crate::{Namespace, Process, Root};

/// The layers of a container's image.
#[derive(Debug)]
pub struct Layers {
    /// Topmost first.
    directories: Vec<OwnedFd>,
    kind: Kind,
}

/// Where layers came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the image's own directories.
    Directories,
    /// From the container's root.
    ContainerRoot,
}

/// The directories that an overlay names, and where relative ones may begin.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    lower: Vec<PathBuf>,
    upper: Option<PathBuf>,
}

/// Layers that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// About the container that runs the image.
    #[error("cannot examine the container that runs the image")]
    Process(#[from] ProcessError),
    /// It has no root.
    #[error("the container that runs the image has no root in its mount table")]
    NoRoot,
    /// It is in a user namespace of its own. There every process may mount an overlay and choose
    /// the names of its layers, and here those names would be opened as names of the node's
    /// directories.
    #[error(
        "the container that runs the image has its own user namespace (hostUsers: false), in which its layers cannot be \
         identified"
    )]
    UserNamespace,
    /// It is in the node's own mount namespace, where its root would be the node's.
    #[error("the process that should run the image shares the node's mount namespace")]
    NotAContainer,
    /// It runs on a kept filesystem, not on its image.
    #[error("the container that should run the image runs on a kept filesystem")]
    Kept,
    /// What failed, and how.
    #[error("image layers: {0}")]
    System(&'static str, #[source] Errno),
}

// === impl Layers ===

impl Layers {
    /// Layers of the image that `container` runs. Leaves the thread in the namespace in which they
    /// may be used: the node's, or a private copy of it.
    pub fn of(
        thread: &NamespaceThread,
        proc: &Proc,
        node: &Namespace,
        container: &Process,
    ) -> Result<Self, LayersError> {
        Self::enter(thread, proc, node, container)?;
        let root = proc.own_mounts()?.root().cloned().ok_or(LayersError::NoRoot)?;
        if root.is_kept_root() {
            return Err(LayersError::Kept);
        }
        thread
            .enter(node)
            .map_err(at("enter the node's mount namespace"))?;
        let host = Root::of_this_thread().map_err(at("open the node's root"))?;
        let made = proc.find_own_mount_of(root.device, |mount| named(mount).is_some())?;
        if let Some(directories) = made.as_ref().and_then(named).and_then(|named| named.open(&host)) {
            return Ok(Self {
                directories,
                kind: Kind::Directories,
            });
        }
        tracing::debug!(
            container = container.id(),
            "layers cannot be opened, using the container's root"
        );
        Self::of_root(thread, proc, node, container)
    }

    /// The root of `container`, which runs the image, as its only layer. Like [`Layers::of`] else.
    pub fn of_root(
        thread: &NamespaceThread,
        proc: &Proc,
        node: &Namespace,
        container: &Process,
    ) -> Result<Self, LayersError> {
        let root = Self::container_root(thread, proc, node, container)?;
        Ok(Self {
            directories: vec![root],
            kind: Kind::ContainerRoot,
        })
    }

    /// Topmost first.
    pub fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.directories.iter().map(AsFd::as_fd)
    }

    /// The same with the owners that a user namespace sees, as detached mounts.
    pub(crate) fn mapped(&self, users: &UserNamespace) -> Result<Self, Errno> {
        Ok(Self {
            directories: self
                .directories()
                .map(|directory| users.mapped(directory))
                .collect::<Result<_, _>>()?,
            kind: self.kind,
        })
    }

    /// Where they came from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Enters the mount namespace of the container. What the thread then has as its root is the
    /// namespace's, whatever root the process gave itself.
    fn enter(
        thread: &NamespaceThread,
        proc: &Proc,
        node: &Namespace,
        container: &Process,
    ) -> Result<(), LayersError> {
        let theirs = container
            .read_if_in(proc, None, || container.mount_namespace(proc))?
            .ok_or(LayersError::UserNamespace)?;
        let identity = |namespace: &Namespace| {
            namespace
                .identity()
                .map_err(at("identify the container's mount namespace"))
        };
        if identity(&theirs)? == identity(node)? {
            return Err(LayersError::NotAContainer);
        }
        thread
            .enter(&theirs)
            .map_err(at("enter the container's mount namespace"))
    }

    fn container_root(
        thread: &NamespaceThread,
        proc: &Proc,
        node: &Namespace,
        container: &Process,
    ) -> Result<OwnedFd, LayersError> {
        Self::enter(thread, proc, node, container)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(rustix::fs::CWD, "/", flags).map_err(at("clone the container's root"))?;
        thread
            .enter(node)
            .map_err(at("enter the node's mount namespace"))?;
        attach_in_copy(thread, [root.as_fd()]).map_err(at("attach the container's root"))?;
        Ok(root)
    }
}

// === impl Named ===

impl Named {
    /// Opens all of them, or none.
    fn open(&self, host: &Root) -> Option<Vec<OwnedFd>> {
        if self.lower.iter().all(|path| path.is_absolute()) {
            return Self::open_below(host, &self.lower, Path::new("/"));
        }
        // Runtimes shorten long lists by changing to a directory above all layers before they
        // mount; it is also above the upper directory, whose path is whole.
        let bases = self
            .upper
            .as_deref()
            .filter(|upper| upper.is_absolute())?
            .ancestors()
            .skip(1);
        bases
            .take_while(|base| base.parent().is_some())
            .find_map(|base| Self::open_below(host, &self.lower, base))
    }

    fn open_below(host: &Root, lower: &[PathBuf], base: &Path) -> Option<Vec<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        lower
            .iter()
            .map(|path| host.open(&base.join(path), flags).ok())
            .collect()
    }
}

/// The directories that a mount names, if it is an overlay. Layers that hold only data (of
/// `metacopy` images) are not something that can be mounted again the same way.
fn named(mount: &Mount) -> Option<Named> {
    if mount.fs_type != "overlay"
        || mount.root != Path::new("/")
        || mount.super_option("datadir+").next().is_some()
    {
        return None;
    }
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let mut lower: Vec<_> = mount.super_option("lowerdir+").map(path).collect();
    if let Some(list) = mount.super_option("lowerdir").next() {
        let list = split(&list)?;
        if !lower.is_empty() {
            return None;
        }
        lower = list.into_iter().map(path).collect();
    }
    if lower.iter().any(|path| is_number(path)) {
        return None;
    }
    let upper = mount.super_option("upperdir").next().map(path);
    (!lower.is_empty()).then_some(Named { lower, upper })
}

/// Whether a layer was passed as the number of a descriptor, which is closed by now. CRI-O's
/// storage does this if the names would not fit into the kernel's page of options.
fn is_number(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

/// Splits a `lowerdir` at its colons; a backslash makes the byte after it an ordinary one. `None`
/// for the `::` that sets off layers of data.
fn split(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => layers.last_mut()?.push(*bytes.next()?),
            b':' if layers.last()?.is_empty() => return None,
            b':' => layers.push(Vec::new()),
            byte => layers.last_mut()?.push(*byte),
        }
    }
    (!layers.last()?.is_empty()).then_some(layers)
}

fn at(what: &'static str) -> impl Fn(Errno) -> LayersError {
    move |errno| LayersError::System(what, errno)
}

#[cfg(test)]
mod tests;
