/*!
The runtime layer: a read-only layer of the kept root, between the image and the upper directory,
with what the container runtime and its hooks did to the container's root at this start.

It is made anew for every start and never part of the upper directory, so it is not the user's
change, and nothing of it outlives the start: neither a library's link nor the empty file on which
a library is mounted.

The layer is the upper directory of an overlay over all that the container is going to see. So the
links of image and user are followed as a hook in a plain pod follows them (`/lib64` may be one),
and the kernel gives the directories on the way the owners and modes that they have there.
*/

mod entry;
mod modes;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, openat, readlinkat, statat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use self::entry::put;
use self::modes::MAX_COPIED;
pub use self::modes::{HookMode, Repeat};
use crate::attach::Hooks;
use crate::cached_stat;
use crate::layers::Layers;
use crate::linker::{self, LinkerError, Mounted};
use crate::namespace::NamespaceThread;
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::plan::Plan;
use crate::process::Proc;
use crate::root::{Problem, Root, RootError};
use crate::runtime_changes::{Changes, ChangesError, Entry, LINKER_CACHE, LINKER_CONFIGS, What};
use crate::store::{Kept, StoreError, list, runtime};

/// Mode of directories that are made on the way to something.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
/// Mode of files of the loader.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);
/// Most names in a directory of the image that is not to be hidden any more.
const MAX_NAMES: usize = 100_000;
/// Where musl's loader has its directories, and what tells an image with musl: NVIDIA's hook looks
/// for that file too.
const MUSL_IMAGE: &str = "/etc/alpine-release";
const MUSL_CONFIG: &str = if cfg!(target_arch = "aarch64") {
    "etc/ld-musl-aarch64.path"
} else {
    "etc/ld-musl-x86_64.path"
};
/// The configuration of the loader with the libraries of CUDA's forward compatibility. It comes
/// first, as that of NVIDIA's hook does (`00-compat-*.conf`).
const CUDA_CONFIG: &str = "etc/ld.so.conf.d/00-compat-0.conf";
/// Files that the runtime mounts in every container. Most images have them, and without them they
/// stay in the upper directory.
const FILES_OF_EVERY_CONTAINER: [&str; 4] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/run/.containerenv",
];
/// Largest file of those, in bytes.
const MAX_MUSL: u64 = 64 << 10;

/// A layer that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeLayerError {
    /// About the container's root.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A place in the kept filesystem.
    #[error("cannot use the kept filesystem")]
    Root(#[from] RootError),
    /// The overlay on which the layer is made.
    #[error("cannot make the layer of the container runtime")]
    Overlay(#[from] OverlayError),
    /// The directories of the layer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache of the loader.
    #[error(transparent)]
    Linker(#[from] LinkerError),
    /// A mode that a hook sets, and a file of the image that would have to be copied for it.
    #[error(
        "a hook chmod gives {} the mode {:o}, which would copy a file of more than {MAX_COPIED} bytes at every start; \
         give the file this mode yourself, or remove the device from the template", .0.path.display(), .0.mode
    )]
    ModeOfLarge(HookMode),
    /// A mode that a hook sets, and where a link of the image leads.
    #[error(
        "a hook chmod gives {} the mode {:o}, and a link of the image leads to {}, which is in a mount that the hook \
         did not find behind the link; replace the link in the image, or remove the device from the template",
        .0.path.display(), .0.mode, .1.display()
    )]
    ModeInMount(HookMode, PathBuf),
    /// A directory where a hook makes a file.
    #[error(
        "a hook makes the file /{}, and there is a directory in the image or of the user; remove the directory, or the \
         device from the template", .0.display()
    )]
    Directory(PathBuf),
    /// A file.
    #[error("cannot put /{} into the kept filesystem", .0.display())]
    Put(PathBuf, #[source] Errno),
    /// Another step.
    #[error("cannot {0}")]
    System(&'static str, #[source] Errno),
}

/// What the layer is made of.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    changes: Changes,
    /// The container's mounts, and their paths.
    mounts: Vec<(PathBuf, OwnedFd)>,
    /// Paths of all that is mounted.
    moved: Vec<PathBuf>,
    /// What hooks could not do.
    repeat: Repeat<'a>,
}

// === impl Seen ===

impl<'a> Seen<'a> {
    /// Looks at the root of the container whose mount namespace the thread is in. `None` if it is
    /// as the wrapper's image has it, no hook sets a mode, and no file is mounted that only some
    /// containers have: the empty file below one must not outlive the start. `ignored` is a
    /// directory of the engine's own.
    pub(crate) fn read(
        _thread: &NamespaceThread,
        proc: &Proc,
        working_directory: Option<&Path>,
        plan: &Plan,
        ignored: &str,
        repeat: Repeat<'a>,
    ) -> Result<Option<Self>, RuntimeLayerError> {
        let root =
            Root::of_this_thread().map_err(|e| RuntimeLayerError::System("open the container's root", e))?;
        let changes = Changes::read(proc, &root, working_directory, ignored)?;
        // What may not answer is not read.
        let is_foreign = |device| plan.foreign.iter().any(|(foreign, _)| *foreign == device);
        let is_own_file = |path: &Path| {
            let seen = cached_stat::at(&root, path.strip_prefix("/").unwrap_or(path));
            seen.is_ok_and(|seen| {
                !is_foreign(seen.device) && !matches!(seen.kind, FileType::Directory | FileType::Unknown)
            })
        };
        let of_every_container = FILES_OF_EVERY_CONTAINER.map(Path::new);
        let mut moved = plan.moves.iter().map(|planned| planned.path.as_path());
        let sets_mode = repeat.modes.iter().any(|wanted| !plan.is_mounted(&wanted.path));
        if changes.is_empty()
            && !sets_mode
            && !moved.any(|path| !of_every_container.contains(&path) && is_own_file(path))
        {
            return Ok(None);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
            | OpenTreeFlags::AT_NO_AUTOMOUNT;
        let mut mounts = Vec::new();
        for planned in plan.moves.iter().filter(|planned| !planned.real_directory) {
            let path = planned.path.strip_prefix("/").unwrap_or(&planned.path);
            let clone = open_tree(&root, path, flags)
                .map_err(|e| RuntimeLayerError::System("clone a mount of the container", e))?;
            let device = cached_stat::of(&clone).map(|seen| seen.device);
            if device.is_ok_and(|device| !is_foreign(device)) {
                mounts.push((planned.path.clone(), clone));
            }
        }
        Ok(Some(Self {
            changes,
            mounts,
            moved: plan.moves.iter().map(|planned| planned.path.clone()).collect(),
            repeat,
        }))
    }

    /// As if the runtime had changed nothing but the cache of the loader.
    fn of_cache() -> Self {
        let cache = Entry {
            path: LINKER_CACHE.into(),
            what: What::File(Vec::new()),
            mode: FILE_MODE,
            owner: (0, 0),
        };
        Self {
            changes: Changes { entries: vec![cache] },
            mounts: Vec::new(),
            moved: Vec::new(),
            repeat: Repeat::default(),
        }
    }
}

/// Replaces the layer of the earlier start. `seen` is what was done at this start, if anything was.
/// `kept` is not in use. Returns the directory of the layer, if there is one.
pub(crate) fn renew(
    thread: &NamespaceThread,
    proc: &Proc,
    layers: &Layers,
    kept: &Kept,
    seen: Option<&Seen<'_>>,
    hooks: Hooks<'_>,
) -> Result<Option<OwnedFd>, RuntimeLayerError> {
    let mut cache_alone = None;
    if kept.has_runtime()? {
        let had_cache = kept.runtime_has(LINKER_CACHE)?;
        let image = image(thread, layers)?;
        kept.settle_runtime(|path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let parent = image.open_no_links(parent_path(path), flags);
            let name = path.file_name().unwrap_or_default();
            parent.is_ok_and(|parent| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
        })?;
        hooks.done("remove the earlier layer of the runtime");
        // One that the user made may name libraries that only that start had.
        if had_cache && kept.upper_has(LINKER_CACHE)? {
            cache_alone = Some(Seen::of_cache());
        }
    }
    let Some(seen) = seen.or(cache_alone.as_ref()) else {
        return Ok(None);
    };
    kept.make_runtime()?;
    let directories = make(thread, proc, layers, kept, seen, hooks)?;
    hooks.done("make the layer of the runtime");
    let image = image(thread, layers)?;
    kept.reveal_runtime(
        |path| match image.open_no_links(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => list(&directory, MAX_NAMES),
            Err(RootError {
                problem: Problem::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP),
                ..
            }) => Ok(Vec::new()),
            Err(RootError {
                problem: Problem::System(errno),
                ..
            }) => Err(errno),
            Err(_) => Err(Errno::IO),
        },
    )?;
    kept.set_modes(&directories)?;
    hooks.done("show the layer of the runtime");
    Ok(Some(kept.runtime()?))
}

/// Makes the layer. Returns the directories whose mode is not that of image and user.
fn make(
    thread: &NamespaceThread,
    proc: &Proc,
    layers: &Layers,
    kept: &Kept,
    seen: &Seen<'_>,
    hooks: Hooks<'_>,
) -> Result<Vec<(PathBuf, Mode)>, RuntimeLayerError> {
    let upper = kept.upper()?;
    let paths = [runtime::UPPER, runtime::WORK].map(|path| format!("{}/{path}", kept.key()));
    let overlay = Overlay {
        lower: std::iter::once(upper.as_fd())
            .chain(layers.directories())
            .collect(),
        upper: Some(Upper {
            base: kept.store(),
            upper: &paths[0],
            work: &paths[1],
        }),
        exclusive: false,
        volatile: true,
        context: None,
    };
    let root = match hooks.api {
        None => overlay.mount(thread),
        Some(api) => overlay.mount_with_api(thread, api),
    }?;
    let root = Root::new(root);
    let mut new = HashSet::new();
    let searched = if seen.changes.concern_linker() {
        linker::directories(&root).into_iter().collect()
    } else {
        HashSet::new()
    };
    for entry in &seen.changes.entries {
        put(&root, entry, &searched, &mut new)?;
    }
    let mut mounted = Mounted::default();
    for (path, mount) in &seen.mounts {
        make_mountpoint(proc, &root, path, mount, &mut mounted)?;
    }
    if seen.changes.concern_linker() {
        configure_musl(&root, &seen.changes)?;
        if let Some(driver) = seen.repeat.cuda_driver
            && let Some(directory) = linker::forward_compatibility(proc, &root, driver)
        {
            let path = Path::new(CUDA_CONFIG);
            let (parent, name) = parent(&root, path)?;
            let content = [directory.as_os_str().as_encoded_bytes(), b"\n"].concat();
            write(&parent, name, &content, FILE_MODE).map_err(at(path))?;
        }
        let made = linker::make(proc, &root, &mounted, &new)?;
        for (directory, name, target) in made.links {
            link(&root, &directory, &name, &target)?;
        }
        let path = Path::new(LINKER_CACHE);
        let (parent, name) = parent(&root, path)?;
        write(&parent, name, &made.cache, FILE_MODE).map_err(at(path))?;
    }
    modes::repeat(proc, &root, seen.repeat.modes, &seen.moved)
}

/// The image alone.
fn image(thread: &NamespaceThread, layers: &Layers) -> Result<Root, RuntimeLayerError> {
    image_root(thread, layers).map(Root::new)
}

/// The root of the image alone, read-only.
pub(crate) fn image_root(thread: &NamespaceThread, layers: &Layers) -> Result<OwnedFd, RuntimeLayerError> {
    let lower: Vec<_> = layers.directories().collect();
    if let [only] = lower[..] {
        // The kernel makes no read-only overlay of one layer.
        return copy(only);
    }
    let overlay = Overlay {
        lower,
        upper: None,
        exclusive: false,
        volatile: false,
        context: None,
    };
    Ok(overlay.mount(thread)?)
}

/// Makes a mount point, so that it need not be made in the upper directory.
fn make_mountpoint(
    proc: &Proc,
    root: &Root,
    path: &Path,
    mount: &OwnedFd,
    mounted: &mut Mounted,
) -> Result<(), RuntimeLayerError> {
    let is_directory = cached_stat::is_directory(proc, mount)
        .map_err(|e| RuntimeLayerError::System("examine a mount of the container", e))?;
    let made = if is_directory {
        root.create_mountpoint(path, DIRECTORY_MODE)
    } else {
        root.create_file(path, DIRECTORY_MODE)
    };
    // Where it fails, attaching the mount does too, and says why.
    if let Ok(made) = made {
        if !is_directory {
            let seen = cached_stat::of(&made).map_err(at(path))?;
            mounted
                .files
                .insert((seen.device, seen.inode), mounted.mounts.len());
        }
        mounted.mounts.push((path.to_owned(), copy(mount.as_fd())?));
    }
    Ok(())
}

/// Gives a library of the runtime its name, as ldconfig(8) does: a file of the image with the name
/// stays.
fn link(root: &Root, directory: &Path, name: &Path, target: &Path) -> Result<(), RuntimeLayerError> {
    let path = directory.join(name);
    let failed = at(path.strip_prefix("/").unwrap_or(&path));
    let directory = root.open(directory, OFlags::PATH | OFlags::DIRECTORY)?;
    match readlinkat(&directory, name, Vec::new()) {
        Ok(found) if found.as_bytes() == target.as_os_str().as_encoded_bytes() => return Ok(()),
        Ok(_) => {
            let [now, wanted] =
                [name, target].map(|name| root.open(&parent_path(&path).join(name), OFlags::PATH));
            let same = |one: &OwnedFd, other: &OwnedFd| {
                let [one, other] = [one, other].map(|fd| cached_stat::of(fd).ok());
                one.zip(other)
                    .is_some_and(|(one, other)| (one.device, one.inode) == (other.device, other.inode))
            };
            if let (Ok(now), Ok(wanted)) = (now, wanted)
                && same(&now, &wanted)
            {
                return Ok(());
            }
            remove(&directory, name.as_os_str()).map_err(&failed)?;
        }
        Err(Errno::NOENT) => {}
        Err(Errno::INVAL) => return Ok(()),
        Err(e) => return Err(failed(e)),
    }
    symlinkat(target, &directory, name).map_err(failed)
}

/// Gives musl's loader the directories of the hook's configuration: it has no cache.
fn configure_musl(root: &Root, changes: &Changes) -> Result<(), RuntimeLayerError> {
    let entries = changes.entries.iter();
    let configurations = entries.filter(|entry| entry.path.starts_with(LINKER_CONFIGS));
    let mut added = Vec::new();
    for entry in configurations {
        if let What::File(configuration) = &entry.what {
            for directory in linker::configured_directories(configuration) {
                added.extend_from_slice(directory.as_os_str().as_encoded_bytes());
                added.push(b'\n');
            }
        }
    }
    if added.is_empty() || root.open(Path::new(MUSL_IMAGE), OFlags::PATH).is_err() {
        return Ok(());
    }
    let path = Path::new(MUSL_CONFIG);
    let mut content = root.read(path, MAX_MUSL)?.unwrap_or_default();
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(&added);
    let (parent, name) = parent(root, path)?;
    write(&parent, name, &content, FILE_MODE).map_err(at(path))
}

/// The directory of a path, which is made if it is missing, and the last component.
fn parent<'a>(root: &Root, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), RuntimeLayerError> {
    let directory = root.create_directory(parent_path(path), DIRECTORY_MODE)?;
    Ok((directory, path.file_name().unwrap_or_default()))
}

fn parent_path(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Puts a file in place of whatever is there, a directory excepted.
fn write(parent: &OwnedFd, name: &OsStr, content: &[u8], mode: Mode) -> Result<(), Errno> {
    remove(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
    fchmod(&fd, mode)?;
    File::from(fd)
        .write_all(content)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, RuntimeLayerError> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|e| RuntimeLayerError::System("copy a descriptor", e))
}

fn at(path: &Path) -> impl Fn(Errno) -> RuntimeLayerError {
    let path = path.to_owned();
    move |source| match source {
        Errno::ISDIR => RuntimeLayerError::Directory(path.clone()),
        _ => RuntimeLayerError::Put(path.clone(), source),
    }
}
