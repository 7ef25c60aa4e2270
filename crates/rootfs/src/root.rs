/*!
Paths below an untrusted root, as descriptors.

A tenant may fill the root with symbolic links to any path. Every step is one `openat2` with
`RESOLVE_IN_ROOT`: the kernel keeps `..` and absolute links inside, and refuses magic links. All
further work uses the descriptor. A process that changes the tree meanwhile can make a call fail or
lead it to another path of the same root, but not out of the root.
*/

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, fsync, mkdirat, openat,
    openat2, readlinkat,
};
use rustix::io::Errno;

use crate::cached_stat;

/// Most symbolic links that are followed for one path: what the kernel follows.
const MAX_LINKS: usize = 40;
/// Most components of one path, those of the links on its way included: each step begins at the top
/// again, so twice as many take four times as long. A path without links has no more than half of
/// that.
const MAX_COMPONENTS: usize = 4096;
/// Most tries for one path while other processes change the tree.
const MAX_RACES: usize = 64;

/// The top of an untrusted tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Devices of file systems in which nothing is looked up, with their types.
    foreign: Vec<((u32, u32), OsString)>,
}

/// A path below a root that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} in the root filesystem: {problem}", path = path)]
pub struct RootError {
    /// The path below the root.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A directory was needed.
    #[error("is not a directory")]
    NotADirectory,
    /// Anything but a directory was needed.
    #[error("is a directory, a file is to be mounted there")]
    IsADirectory,
    /// A link where none is followed.
    #[error("is a symbolic link; the runtime's own directory must be a real one")]
    SymbolicLink,
    /// The root where a place in it was needed.
    #[error("leads to the root itself, and nothing can be mounted over the root")]
    TheRoot,
    /// A link that the kernel makes up.
    #[error("leads through a link of /proc, which differs for every process")]
    ProcLink,
    /// Where another process or machine would have to be asked.
    #[error(
        "leads into a mounted file system of type {0:?}, in which nothing is looked up as its server may not \
         answer; a link of the image leads there"
    )]
    Foreign(OsString),
    /// More than 40 links.
    #[error("too many symbolic links")]
    TooManyLinks,
    /// More than 4096 components.
    #[error("has more than {MAX_COMPONENTS} components, those of the symbolic links on its way included")]
    TooManyComponents,
    /// Another process changed the tree at every attempt.
    #[error("changes faster than it can be used")]
    Unstable,
    /// Something that is read must be a file.
    #[error("is not a regular file")]
    NotAFile,
    /// Something that is read must be small.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// What the kernel said.
    #[error(transparent)]
    System(#[from] Errno),
}

// === impl Root ===

impl Root {
    /// `fd` is a directory.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            foreign: Vec::new(),
        }
    }

    /// The same, with file systems in which [`Root::create_directory`] and its like look nothing
    /// up.
    pub(crate) fn without(self, foreign: Vec<((u32, u32), OsString)>) -> Self {
        Self { foreign, ..self }
    }

    /// The root of the calling thread.
    pub fn of_this_thread() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(rustix::fs::open("/", flags, Mode::empty())?))
    }

    /// Opens what the path leads to, links inside the root followed.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, RootError> {
        self.openat2(path, flags, ResolveFlags::empty())
            .map_err(|e| failed(path, e))
    }

    /// Like [`Root::open`], but no link on the way is followed.
    pub fn open_no_links(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, RootError> {
        self.openat2(path, flags, ResolveFlags::NO_SYMLINKS)
            .map_err(|e| failed(path, e))
    }

    /// Opens a directory and makes what is missing of its path, with mode `mode` (the umask
    /// applies). Links are followed inside the root, and where one points at nothing, that is made.
    pub fn create_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let found = self.walk(path, Last::Directory(mode), mode, |_| Ok(()))?;
        match file_type(&found).map_err(|e| failed(path, e))? {
            FileType::Directory => Ok(found),
            _ => Err(failed(path, Problem::NotADirectory)),
        }
    }

    /// Like [`Root::create_directory`], and what was made has its name durably when this returns.
    /// Directories that were there are left alone: not every file system can sync one.
    pub fn create_durable_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let found = self.walk(path, Last::Directory(mode), mode, sync_directory)?;
        match file_type(&found).map_err(|e| failed(path, e))? {
            FileType::Directory => Ok(found),
            _ => Err(failed(path, Problem::NotADirectory)),
        }
    }

    /// Opens (`O_PATH`) something that is not a directory, and makes an empty file with mode 0755
    /// if it is missing, as a runtime does for the mountpoint of a file. Directories on the way are
    /// made with mode `mode`.
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let found = self.walk(path, Last::File, mode, |_| Ok(()))?;
        match file_type(&found).map_err(|e| failed(path, e))? {
            FileType::Directory => Err(failed(path, Problem::IsADirectory)),
            _ => Ok(found),
        }
    }

    /// Opens a directory on which something is to be mounted: [`Root::create_directory`] for
    /// anything but the root. Over that, processes of the container would not see the mount but the
    /// next one to look for the root would.
    pub fn create_mountpoint(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let found = self.create_directory(path, mode)?;
        let identity = |fd: &OwnedFd| {
            cached_stat::of(fd)
                .map(|seen| (seen.device, seen.inode))
                .map_err(|e| failed(path, e))
        };
        if identity(&found)? == identity(&self.fd)? {
            return Err(failed(path, Problem::TheRoot));
        }
        Ok(found)
    }

    /// Opens the directory `path`, making it if it is missing. No component may be a link.
    pub fn create_real_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match self.openat2(path, flags, ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => {
                let made = self.create_directory(path, mode)?;
                drop(made);
                self.openat2(path, flags, ResolveFlags::NO_SYMLINKS)
                    .map_err(|e| failed(path, e))
            }
            Err(Errno::LOOP) => Err(failed(path, Problem::SymbolicLink)),
            // A link at the end is `ENOTDIR` with these flags.
            Err(Errno::NOTDIR) => match self.openat2(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS) {
                Err(Errno::LOOP) => Err(failed(path, Problem::SymbolicLink)),
                _ => Err(failed(path, Problem::NotADirectory)),
            },
            Err(e) => Err(failed(path, e)),
        }
    }

    /// Reads a small regular file. `None` if there is none. Never waits: a FIFO, a device and the
    /// like are refused before they are opened. The thread must be in a mount namespace of the
    /// node's, for its /proc.
    pub fn read(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>, RootError> {
        let looked = match self.openat2(path, OFlags::PATH, ResolveFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(failed(path, e)),
        };
        let fd = open_file(&looked)
            .map_err(|e| failed(path, e))?
            .ok_or_else(|| failed(path, Problem::NotAFile))?;
        let stat = fstat(&fd).map_err(|e| failed(path, e))?;
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > max {
            return Err(failed(path, Problem::TooLarge(max)));
        }
        let mut content = Vec::new();
        let read = File::from(fd).take(max + 1).read_to_end(&mut content);
        read.map_err(|e| failed(path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        if content.len() as u64 > max {
            return Err(failed(path, Problem::TooLarge(max)));
        }
        Ok(Some(content))
    }

    /// Mode, owner and group of the root itself.
    pub fn stat(&self) -> Result<rustix::fs::Stat, Errno> {
        fstat(&self.fd)
    }

    fn openat2(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        loop {
            // EAGAIN: a rename happened somewhere while `..` was resolved; the kernel asks for
            // another try.
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Resolves the path like a process whose root this is, making what is missing. `made_in` gets
    /// the directory in which something was made.
    fn walk(
        &self,
        path: &Path,
        last: Last,
        mode: Mode,
        made_in: fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<OwnedFd, RootError> {
        let fail = |problem: Problem| failed(path, problem);
        // What is resolved so far, without links at the time that it was looked at.
        let mut resolved = PathBuf::new();
        let mut rest: VecDeque<OsString> = components(path).collect();
        let (mut links, mut races, mut seen) = (0, 0, rest.len());
        let here = OFlags::PATH | OFlags::DIRECTORY;
        while let Some(name) = rest.pop_front() {
            if seen > MAX_COMPONENTS {
                return Err(fail(Problem::TooManyComponents));
            }
            if name == ".." {
                resolved.pop();
                continue;
            }
            let parent = match self.openat2(&resolved, here, ResolveFlags::NO_SYMLINKS) {
                Ok(parent) => parent,
                Err(Errno::NOTDIR) => return Err(fail(Problem::NotADirectory)),
                Err(Errno::LOOP | Errno::NOENT) => return Err(fail(Problem::Unstable)),
                Err(e) => return Err(fail(e.into())),
            };
            let entry = match cached_stat::at(&parent, &name) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => {
                    races += 1;
                    if races > MAX_RACES {
                        return Err(fail(Problem::Unstable));
                    }
                    let made = match last {
                        Last::File if rest.is_empty() => make_file(&parent, &name),
                        Last::Directory(mode) if rest.is_empty() => mkdirat(&parent, &name, mode),
                        _ => mkdirat(&parent, &name, mode),
                    };
                    match made {
                        // Look again: another process may have made something else there.
                        Ok(()) => {
                            made_in(&parent).map_err(|e| fail(e.into()))?;
                            rest.push_front(name);
                        }
                        Err(Errno::EXIST) => rest.push_front(name),
                        Err(e) => return Err(fail(e.into())),
                    }
                    continue;
                }
                Err(e) => return Err(fail(e.into())),
            };
            if let Some((_, kind)) = self.foreign.iter().find(|(device, _)| *device == entry.device) {
                return Err(fail(Problem::Foreign(kind.clone())));
            }
            if entry.kind != FileType::Symlink {
                resolved.push(name);
                continue;
            }
            if fstatfs(&parent).map_err(|e| fail(e.into()))?.f_type == PROC_SUPER_MAGIC {
                return Err(fail(Problem::ProcLink));
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(fail(Problem::TooManyLinks));
            }
            let target = match readlinkat(&parent, &name, Vec::new()) {
                Ok(target) => PathBuf::from(OsString::from_vec(target.into_bytes())),
                Err(Errno::INVAL | Errno::NOENT) => return Err(fail(Problem::Unstable)),
                Err(e) => return Err(fail(e.into())),
            };
            if target.is_absolute() {
                resolved.clear();
            }
            for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(component);
                seen += 1;
            }
        }
        self.openat2(&resolved, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
            .map_err(|e| match e {
                Errno::LOOP | Errno::NOENT => fail(Problem::Unstable),
                e => fail(e.into()),
            })
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the last component of a path becomes if it is missing.
#[derive(Clone, Copy)]
enum Last {
    Directory(Mode),
    File,
}

/// Makes the entries of a directory durable.
fn sync_directory(directory: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fsync(openat(directory, ".", flags, Mode::empty())?)
}

fn make_file(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from(0o755)).map(drop)
}

/// Opens for reading what an `O_PATH` descriptor stands for. `None`, and nothing is opened, if that
/// is not a regular file: opening a device may have effects. By the descriptor, because the tenant
/// may put something else at the path between the look at it and its opening.
pub(crate) fn open_file(looked: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    if file_type(looked)? != FileType::RegularFile {
        return Ok(None);
    }
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, "/proc", directory, Mode::empty())?;
    if fstatfs(&proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::NOSYS);
    }
    // Nothing that lies on it is entered either.
    let own = openat2(
        &proc,
        "thread-self/fd",
        directory,
        Mode::empty(),
        ResolveFlags::NO_XDEV,
    )?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(&own, looked.as_raw_fd().to_string(), flags, Mode::empty()).map(Some)
}

fn file_type(fd: &OwnedFd) -> Result<FileType, Errno> {
    Ok(cached_stat::of(fd)?.kind)
}

/// The components that mean something: names and `..`.
fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn failed(path: &Path, problem: impl Into<Problem>) -> RootError {
    RootError {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
