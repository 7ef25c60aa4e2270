/*!
What the container runtime and its hooks left in a container's root, beyond the wrapper's image.

In a plain pod this is the root of the user's command: a CDI or OCI hook makes links, files,
directories and device nodes there before the command runs. In a consumer it is the root of the
wrapper, which is detached a moment later. What is found here goes into the runtime layer of the
kept root ([`crate::runtime_layer`]).

The root is that of the wrapper's image, so all of its content is known: one program. Everything
else is a change, whatever snapshotter keeps it. Mount points are none: the engine moves mounts.
Other processes of the pod may write there too, so what is read is bounded.
*/

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use crate::cached_stat;
use crate::process::Proc;
use crate::root::Root;

/// Most entries, those that only lead to mount points included. Drivers of GPUs come with some
/// dozens of links.
const MAX_ENTRIES: usize = 4096;
/// Most bytes of all files together. Hooks write configuration.
const MAX_BYTES: u64 = 4 << 20;
/// The cache of glibc's loader. Its content counts for nothing, as it is that of the wrapper's
/// root.
pub(crate) const LINKER_CACHE: &str = "etc/ld.so.cache";
/// The configuration of glibc's loader.
pub(crate) const LINKER_CONFIG: &str = "etc/ld.so.conf";
/// Further files of that.
pub(crate) const LINKER_CONFIGS: &str = "etc/ld.so.conf.d";
/// What is there in every consumer: the program of the wrapper's image, the directories of the
/// runtime's own file systems, and a link that CRI-O makes in every container.
const NO_CHANGES: [&str; 5] = ["exec-wrapper", "proc", "sys", "dev", "etc/mtab"];

/// What was done to a container's root.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// A directory comes before what is in it.
    pub(crate) entries: Vec<Entry>,
}

/// A file of any kind.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its path without the leading slash.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) what: What,
    /// Its permissions.
    pub(crate) mode: Mode,
    /// Its user and group, as the agent sees them.
    pub(crate) owner: (u32, u32),
}

/// Kinds of files.
#[derive(Debug)]
pub(crate) enum What {
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Link(CString),
    /// A regular file and its content.
    File(Vec<u8>),
    /// A device or a FIFO, and its number.
    Special(FileType, u64),
}

/// Changes that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// More than the engine takes over.
    #[error(
        "the runtime or one of its hooks made more than {MAX_ENTRIES} files there; put them into the image, or remove \
         the device from the template"
    )]
    TooMany,
    /// Larger than the engine takes over.
    #[error(
        "the runtime or one of its hooks made files of more than {MAX_BYTES} bytes there; put them into the image, or \
         remove the device from the template"
    )]
    TooLarge,
    /// Something that is nothing without the process that made it.
    #[error(
        "the runtime or one of its hooks made the socket /{} there, and a socket is nothing without the file that its \
         process made; let the driver mount it, or remove the device from the template", .0.display()
    )]
    Socket(PathBuf),
    /// What failed, and how.
    #[error("cannot read /{}", .0.display())]
    System(PathBuf, #[source] Errno),
}

// === impl Changes ===

impl Changes {
    /// Reads them from the root of the container whose mount namespace the thread is in. The
    /// working directory is the runtime's, which makes it if it is missing.
    pub(crate) fn read(
        proc: &Proc,
        root: &Root,
        working_directory: Option<&Path>,
        ignored: &str,
    ) -> Result<Self, ChangesError> {
        let mut walk = Walk {
            proc,
            root,
            mount: cached_stat::of(root).map_err(at(Path::new("")))?.mount,
            bytes: 0,
            entries: Vec::new(),
            seen: 0,
            not_by_hooks: HashSet::new(),
        };
        if let Some(path) = working_directory.and_then(|path| path.strip_prefix("/").ok()) {
            walk.not_by_hooks.extend(path.ancestors().map(Path::to_owned));
        }
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            walk.directory(&path, ignored, &mut pending)?;
        }
        Ok(walk.changes())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the cache of the loader or its configuration is among them, so that the kept root
    /// needs a cache too.
    pub(crate) fn concern_linker(&self) -> bool {
        let is_of_linker = |entry: &Entry| {
            entry.path == Path::new(LINKER_CACHE)
                || entry.path == Path::new(LINKER_CONFIG)
                || entry.path.starts_with(LINKER_CONFIGS)
        };
        self.entries.iter().any(is_of_linker)
    }
}

struct Walk<'a> {
    proc: &'a Proc,
    root: &'a Root,
    /// The mount of the root.
    mount: u64,
    bytes: u64,
    seen: usize,
    entries: Vec<Entry>,
    /// Directories that the runtime makes in every container: those that lead to a mount point or
    /// are the working directory.
    not_by_hooks: HashSet<PathBuf>,
}

// === impl Walk ===

impl Walk<'_> {
    fn directory(
        &mut self,
        path: &Path,
        ignored: &str,
        pending: &mut Vec<PathBuf>,
    ) -> Result<(), ChangesError> {
        let directory = self
            .open(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(at(path))?;
        for entry in Dir::read_from(&directory).map_err(at(path))? {
            let entry = entry.map_err(at(path))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = path.join(OsStr::from_bytes(name.to_bytes()));
            if NO_CHANGES.iter().any(|known| below == Path::new(known)) || below == Path::new(ignored) {
                continue;
            }
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                return Err(ChangesError::TooMany);
            }
            if cached_stat::at(&directory, name).map_err(at(&below))?.mount != self.mount {
                self.not_by_hooks.extend(path.ancestors().map(Path::to_owned));
                continue;
            }
            let stat = statat(
                &directory,
                name,
                AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
            )
            .map_err(at(&below))?;
            let what = self.what(&directory, name, &below, &stat)?;
            if matches!(what, What::Directory) {
                pending.push(below.clone());
            }
            self.entries.push(Entry {
                path: below,
                what,
                mode: Mode::from_raw_mode(stat.st_mode),
                owner: (stat.st_uid, stat.st_gid),
            });
        }
        Ok(())
    }

    fn what(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<What, ChangesError> {
        Ok(match FileType::from_raw_mode(stat.st_mode as RawMode) {
            FileType::Directory => What::Directory,
            FileType::Symlink => What::Link(readlinkat(directory, name, Vec::new()).map_err(at(path))?),
            FileType::RegularFile if path == Path::new(LINKER_CACHE) => What::File(Vec::new()),
            FileType::RegularFile => What::File(self.content(path)?),
            FileType::Socket => return Err(ChangesError::Socket(path.to_owned())),
            kind => What::Special(kind, stat.st_rdev),
        })
    }

    fn content(&mut self, path: &Path) -> Result<Vec<u8>, ChangesError> {
        // By the descriptor: another process of the pod may put a device or FIFO there meanwhile.
        let looked = self.open(path, OFlags::PATH).map_err(at(path))?;
        let kind = FileType::from_raw_mode(fstat(&looked).map_err(at(path))?.st_mode);
        if kind != FileType::RegularFile {
            return Err(at(path)(Errno::STALE));
        }
        let link = format!("thread-self/fd/{}", looked.as_raw_fd());
        let file = self.proc.open_at(link, OFlags::RDONLY).map_err(at(path))?;
        let mut content = Vec::new();
        File::from(file)
            .take(MAX_BYTES - self.bytes + 1)
            .read_to_end(&mut content)
            .map_err(|e| at(path)(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        self.bytes += content.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(ChangesError::TooLarge);
        }
        Ok(content)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(
            self.root,
            path,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    /// What was found, without the directories that the runtime makes in every container.
    fn changes(mut self) -> Changes {
        let files = self
            .entries
            .iter()
            .filter(|entry| !matches!(entry.what, What::Directory));
        let with_files: HashSet<_> = files
            .flat_map(|entry| entry.path.ancestors().skip(1))
            .map(Path::to_owned)
            .collect();
        self.entries.retain(|entry| {
            !matches!(entry.what, What::Directory)
                || with_files.contains(&entry.path)
                || !self.not_by_hooks.contains(&entry.path)
        });
        self.entries.sort_by(|one, other| one.path.cmp(&other.path));
        Changes {
            entries: self.entries,
        }
    }
}

fn at(path: &Path) -> impl Fn(Errno) -> ChangesError {
    let path = path.to_owned();
    move |source| ChangesError::System(path.clone(), source)
}
