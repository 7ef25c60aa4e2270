/*!
The cache of glibc's loader for a root: what ldconfig(8) makes, without a program of the image.

In a plain pod a hook runs the node's ldconfig over the container's root, so that programs find the
libraries that the runtime mounts. Here it has to be the kept root, with what the user installed.
The root is untrusted: paths are resolved in it by descriptor, only regular files are opened, and
the number of libraries and the time are bounded.
*/

mod cache;
mod config;
mod elf;
mod forward_compatibility;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use self::cache::Library;
use self::elf::SharedObject;
use crate::cached_stat;
use crate::process::Proc;
use crate::root::{Root, RootError};
use crate::store::list;

pub(crate) use self::config::{configured_directories, directories, without_directories};
pub(crate) use self::forward_compatibility::directory as forward_compatibility;

/// Most names in all directories together.
const MAX_NAMES: usize = 30_000;
/// Most bytes of the names and paths of libraries. The largest images have some hundred thousand.
const MAX_BYTES: usize = 4 << 20;
/// Longest time. A large image has some thousand libraries, which take less than a second when the
/// disk is slow.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Mounts that the container is going to have, as they are seen before they are there.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// Their paths and the mounts.
    pub(crate) mounts: Vec<(PathBuf, OwnedFd)>,
    /// Mount points that are files, by device and inode, with the number of their mount.
    pub(crate) files: HashMap<((u32, u32), u64), usize>,
}

/// A cache that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkerError {
    /// A directory that has to be written.
    #[error("cannot use the kept filesystem")]
    Root(#[from] RootError),
    /// More than a root has.
    #[error(
        "the directories of the loader have more than {MAX_NAMES} files, or {MAX_BYTES} bytes of their paths; remove \
         directories from /etc/ld.so.conf of the image, or the device from the template"
    )]
    TooMany,
    /// It took too long.
    #[error(
        "reading the libraries took longer than {} s; try again when the node's disk has less to do, or remove \
         directories from /etc/ld.so.conf of the image", MAX_TIME.as_secs()
    )]
    TooSlow,
    /// What failed, and how.
    #[error("cannot make the cache of the loader for {}", .0.display())]
    System(PathBuf, #[source] Errno),
}

/// What has to be in a root for the loader.
#[derive(Debug)]
pub(crate) struct Made {
    /// The content of `/etc/ld.so.cache`.
    pub(crate) cache: Vec<u8>,
    /// Links that give libraries of the runtime their names: directory, name, target.
    pub(crate) links: Vec<(PathBuf, PathBuf, PathBuf)>,
}

/// Makes the cache of a root. `is_new` knows the files that the runtime made, by device and inode.
pub(crate) fn make(
    proc: &Proc,
    root: &Root,
    mounted: &Mounted,
    is_new: &HashSet<((u32, u32), u64)>,
) -> Result<Made, LinkerError> {
    let mut search = Search {
        proc,
        root,
        mounted,
        is_new,
        until: Instant::now() + MAX_TIME,
        names: 0,
        bytes: 0,
        libraries: Vec::new(),
        links: Vec::new(),
    };
    let mut seen = HashSet::new();
    for path in config::directories(root) {
        let Some(directory) = search.open(&path) else {
            continue;
        };
        let stat = cached_stat::of(&directory).map_err(at(&path))?;
        if seen.insert((stat.device, stat.inode)) {
            search.directory(&path, &directory)?;
        }
    }
    Ok(Made {
        cache: cache::encode(search.libraries),
        links: search.links,
    })
}

struct Search<'a> {
    proc: &'a Proc,
    root: &'a Root,
    mounted: &'a Mounted,
    is_new: &'a HashSet<((u32, u32), u64)>,
    until: Instant,
    names: usize,
    bytes: usize,
    libraries: Vec<Library>,
    links: Vec<(PathBuf, PathBuf, PathBuf)>,
}

/// The best file for a name that programs ask for.
struct Candidate {
    file: PathBuf,
    is_link: bool,
    flags: u32,
    is_of_runtime: bool,
}

// === impl Search ===

impl Search<'_> {
    /// A directory as the container is going to see it.
    fn open(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mounts = self.mounted.mounts.iter();
        let over = mounts.rev().find(|(mountpoint, _)| path.starts_with(mountpoint));
        match over {
            None => self.root.open(path, flags).ok(),
            Some((mountpoint, mount)) => {
                let below = path.strip_prefix(mountpoint).ok()?;
                open_in(mount, below, flags).ok()
            }
        }
    }

    /// Adds the libraries of one directory, as ldconfig(8) does (`search_dir`).
    fn directory(&mut self, path: &Path, directory: &OwnedFd) -> Result<(), LinkerError> {
        let mut found: Vec<(Vec<u8>, Candidate)> = Vec::new();
        let mut by_name: HashMap<(Vec<u8>, u32), usize> = HashMap::new();
        let names = list(directory, MAX_NAMES - self.names).map_err(|errno| match errno {
            Errno::TOOBIG => LinkerError::TooMany,
            errno => at(path)(errno),
        })?;
        self.names += names.len();
        for (name, kind) in names {
            if !is_library_name(name.as_os_str().as_bytes()) {
                continue;
            }
            if Instant::now() > self.until {
                return Err(LinkerError::TooSlow);
            }
            let Some((library, is_of_runtime)) = self.library(path, directory, &name) else {
                continue;
            };
            let file_name = name.as_os_str().as_bytes().to_vec();
            let mut name_asked = library.name.unwrap_or_else(|| file_name.clone());
            let mut is_link = kind == FileType::Symlink;
            if is_link {
                // The link of the linker (`libx.so`) is asked for by its own name. Another link
                // whose name is not that of the library is a library like any other.
                is_link = file_name == name_asked
                    || (file_name.ends_with(b".so") && name_asked.starts_with(&file_name));
                if is_link {
                    name_asked.clone_from(&file_name);
                }
            }
            let candidate = Candidate {
                file: name,
                is_link,
                flags: library.flags,
                is_of_runtime,
            };
            let key = (name_asked.clone(), library.flags);
            if let Some(known) = by_name.get(&key) {
                let known = &mut found[*known].1;
                let newer = cache::compare_names(known.file.as_os_str().as_bytes(), &file_name).is_lt();
                if (known.is_link && !is_link) || (known.is_link == is_link && newer) {
                    *known = candidate;
                }
            } else {
                by_name.insert(key, found.len());
                found.push((name_asked, candidate));
            }
        }
        for (name, candidate) in found {
            let name_path = PathBuf::from(std::ffi::OsStr::from_bytes(&name));
            if candidate.is_of_runtime && name_path != candidate.file {
                self.links
                    .push((path.to_owned(), name_path.clone(), candidate.file));
            }
            let library_path = path.join(&name_path).into_os_string().into_encoded_bytes();
            self.bytes += name.len() + library_path.len();
            if self.bytes > MAX_BYTES {
                return Err(LinkerError::TooMany);
            }
            self.libraries.push(Library {
                path: library_path,
                name,
                flags: candidate.flags,
            });
        }
        Ok(())
    }

    /// The library that a name leads to, and whether the runtime put it there. Whatever is wrong
    /// with it, the loader would not load it either.
    fn library(&self, path: &Path, directory: &OwnedFd, name: &Path) -> Option<(SharedObject, bool)> {
        let over = |path: &Path| {
            let mounts = self.mounted.mounts.iter();
            { mounts }.any(|(mountpoint, _)| path.starts_with(mountpoint))
        };
        if over(path) {
            // In a mounted directory, whose links lead to where they do there.
            let flags = OFlags::PATH;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            let looked = openat2(directory, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
            return Some((self.read(&looked)?, false));
        }
        let looked = self.root.open(&path.join(name), OFlags::PATH).ok()?;
        let seen = cached_stat::of(&looked).ok()?;
        let identity = (seen.device, seen.inode);
        if let Some(mount) = self.mounted.files.get(&identity) {
            return Some((self.read(&self.mounted.mounts.get(*mount)?.1)?, true));
        }
        Some((self.read(&looked)?, self.is_new.contains(&identity)))
    }

    fn read(&self, looked: &OwnedFd) -> Option<SharedObject> {
        if cached_stat::of(looked).ok()?.kind != FileType::RegularFile {
            return None;
        }
        let link = format!("thread-self/fd/{}", looked.as_raw_fd());
        let file = self
            .proc
            .open_at(link, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .ok()?;
        SharedObject::read(file).ok()?
    }
}

fn open_in(mount: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(mount, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Whether ldconfig(8) would look at a file with this name.
fn is_library_name(name: &[u8]) -> bool {
    (name.starts_with(b"lib") || name.starts_with(b"ld-")) && name.windows(3).any(|part| part == b".so")
}

fn at(path: &Path) -> impl Fn(Errno) -> LinkerError {
    let path = path.to_owned();
    move |source| LinkerError::System(path.clone(), source)
}
