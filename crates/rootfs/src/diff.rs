/*!
What the user changed against the image: the upper directory compared with the image.

A path of the upper directory that hides nothing of the image was added, and a mark of the overlay
that hides something (overlayfs.rst, "whiteouts and opaque directories") deletes it. A path that is
in both was changed if type, owner, mode, content or attributes differ: the kernel copies a file up
when a process opens it for writing, which is not a change yet. Of a directory, the time of the last
change does not count, because it changes with every entry.

What the container runtime put into the container's root is not the user's: the runtime layer does
not count, and neither does an unchanged copy of its files. What that layer covers of the user's
files does count: the files are kept.

The kept filesystem may be in use. Reading an upper directory that is mounted is allowed
(overlayfs.rst, "Changes to underlying filesystems"); what is changed meanwhile may or may not be
seen. Nothing is trusted: see [`crate::walk`].
*/

mod compare;
mod locate;

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;

use self::compare::{is_whiteout_stat, open_path};
use crate::attach::with_image;
use crate::store::{Kept, StoreError, runtime};
use crate::walk::{Bounds, Entry, Visitor, open_below, walk};
use crate::{AttachError, Namespace, Proc, Process, Root};

pub(crate) use self::locate::{Found, locate};

/// Bytes of paths that are remembered at most.
const MAX_PENDING: usize = 4 << 20;

/// A kept filesystem and its image.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The node's /proc.
    pub proc: &'a Proc,
    /// The node's mount namespace, in which the store and the layers are.
    pub node: &'a Namespace,
    /// A process of the container that runs the image.
    pub image: &'a Process,
    /// The kept filesystem.
    pub kept: &'a Kept,
}

/// Which changes are reported.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Only this absolute path and what is below it.
    pub path: &'a Path,
    /// Changes in deeper directories are summed up. Zero sums up everything.
    pub depth: Option<usize>,
    /// Absolute paths of mount points of the container and the directories above them. They are
    /// not the user's changes where they are empty.
    pub mountpoints: &'a HashSet<PathBuf>,
    /// When to stop. What was not reached by then is missing.
    pub until: Instant,
}

/// A difference from the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is different.
    pub kind: ChangeKind,
    /// What there is, or was before it was deleted.
    pub file_type: FileType,
    /// How many changes it stands for: those below the path that are deeper than asked for. A path
    /// may be reported twice, and then both count.
    pub count: u64,
    /// The absolute path.
    pub path: PathBuf,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image does not have it.
    Added,
    /// It is not as in the image.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// Changes that cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A link on the way or at its end. None is followed: it may lead into a volume.
    #[error("{} is a symbolic link to {}; name the path that it leads to", path.display(), target.display())]
    Link {
        /// The path of the link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither the image nor the user has it.
    #[error("{} does not exist in the kept filesystem", .0.display())]
    NotFound(PathBuf),
    /// The receiver of the changes does not want more.
    #[error("stopped")]
    Stopped,
    /// The image.
    #[error(transparent)]
    Image(#[from] AttachError),
    /// The data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the kernel said.
    #[error("cannot read the kept files")]
    System(#[from] Errno),
}

/// Passes all changes to `receive`, in no particular order, until that returns false. Returns
/// whether everything was reached.
pub fn diff(
    source: Source<'_>,
    scope: Scope<'_>,
    receive: &mut (dyn FnMut(Change) -> bool + Send),
) -> Result<bool, DiffError> {
    let Source {
        proc,
        node,
        image,
        kept,
    } = source;
    with_image(proc, node, image, kept, |image| {
        let upper = kept.upper()?;
        let mut stopped = false;
        let mut receive = |change| {
            stopped = stopped || !receive(change);
            if stopped { Err(Errno::CANCELED) } else { Ok(()) }
        };
        let compared = compare_trees(image, kept, &upper, scope, &mut receive);
        match compared {
            Err(_) if stopped => Err(DiffError::Stopped),
            compared => compared,
        }
    })?
}

fn compare_trees(
    image: &Root,
    kept: &Kept,
    upper: &OwnedFd,
    scope: Scope<'_>,
    receive: &mut dyn FnMut(Change) -> Result<(), Errno>,
) -> Result<bool, DiffError> {
    let start = scope.path.strip_prefix("/").unwrap_or(scope.path);
    let bounds = Bounds {
        until: scope.until,
        pending: MAX_PENDING,
    };
    let runtime = kept.optional(runtime::UPPER)?;
    let covered = kept.optional(runtime::COVERED)?;
    let found = match (locate(upper, image, start), &covered) {
        (Err(DiffError::NotFound(_)), Some(covered)) if compare::look(covered.as_fd(), start)?.is_some() => {
            Found::Unchanged
        }
        (found, _) => found?,
    };
    let mut diff = Diff {
        image,
        upper: upper.as_fd(),
        runtime,
        start,
        scope,
        hidden: Vec::new(),
        hidden_at_start: false,
        summed: None,
        receive,
    };
    let mut complete = match found {
        Found::Directory { directory, hidden } => {
            diff.hidden_at_start = hidden;
            walk(directory.as_fd(), bounds, &mut diff)?
        }
        Found::File { parent, name, stat } => {
            diff.entry(&parent, &name, start, &stat, 0)?;
            true
        }
        Found::Deleted(file_type) => {
            diff.report(ChangeKind::Deleted, file_type, start, 0)?;
            true
        }
        Found::Unchanged => true,
    };
    if let Some(covered) = covered {
        complete &= diff.covered(covered.as_fd(), bounds)?;
    }
    Ok(complete)
}

struct Diff<'a> {
    image: &'a Root,
    upper: BorrowedFd<'a>,
    /// The runtime layer.
    runtime: Option<OwnedFd>,
    /// Where the walk begins, relative to the root.
    start: &'a Path,
    scope: Scope<'a>,
    /// For each directory that was entered and not left, whether the image below it is hidden.
    hidden: Vec<bool>,
    hidden_at_start: bool,
    /// The directory whose changes are summed up.
    summed: Option<Summed>,
    receive: &'a mut dyn FnMut(Change) -> Result<(), Errno>,
}

/// A directory at the greatest depth that is listed.
struct Summed {
    path: PathBuf,
    own: Option<ChangeKind>,
    count: u64,
}

/// Files that the runtime layer covers.
struct Covered<'a, 'b>(&'a mut Diff<'b>);

// === impl Diff ===

impl Diff<'_> {
    /// Reports a change, or counts it if it is deeper than the changes that are listed.
    fn report(
        &mut self,
        kind: ChangeKind,
        file_type: FileType,
        path: &Path,
        depth: usize,
    ) -> Result<(), Errno> {
        if self.scope.depth.is_some_and(|most| depth > most) {
            if let Some(summed) = &mut self.summed {
                summed.count += 1;
            }
            return Ok(());
        }
        (self.receive)(Change {
            kind,
            file_type,
            count: 1,
            path: Path::new("/").join(path),
        })
    }

    /// Compares an entry that is not a directory.
    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &Path,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), Errno> {
        if is_whiteout_stat(stat) {
            // What only the runtime had is not missed.
            return match compare::look(self.image.as_fd(), path)? {
                Some((_, image)) => self.report(ChangeKind::Deleted, type_of(&image), path, depth),
                None => Ok(()),
            };
        }
        let open = || open_path(parent.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())));
        match self.difference(stat, &open, path)? {
            Some(kind) => self.report(kind, type_of(stat), path, depth),
            None => Ok(()),
        }
    }

    /// How something of the user differs from the image.
    fn difference(
        &self,
        stat: &Stat,
        open: &dyn Fn() -> Result<Option<OwnedFd>, Errno>,
        path: &Path,
    ) -> Result<Option<ChangeKind>, Errno> {
        let same = |base: &(OwnedFd, Stat)| compare::is_same(stat, open, base, self.scope.until);
        if let Some(runtime) = &self.runtime
            && let Some(of_runtime) = compare::look(runtime.as_fd(), path)?
            && same(&of_runtime)?
            && !compare::is_copied_directory(&of_runtime.0, &of_runtime.1)?
        {
            return Ok(None);
        }
        let Some(of_image) = compare::look(self.image.as_fd(), path)? else {
            return Ok((!self.is_mountpoint(stat, path)).then_some(ChangeKind::Added));
        };
        Ok((!same(&of_image)?).then_some(ChangeKind::Changed))
    }

    /// Whether it is only there so that something can be mounted on it.
    fn is_mountpoint(&self, stat: &Stat, path: &Path) -> bool {
        let empty = match type_of(stat) {
            FileType::Directory => true,
            FileType::RegularFile => stat.st_size == 0,
            _ => false,
        };
        empty && self.scope.mountpoints.contains(&Path::new("/").join(path))
    }

    /// What the image has in a directory, and the user does not: all of it is hidden.
    fn deleted_in(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> Result<(), Errno> {
        for (name, file_type) in compare::list(self.image.as_fd(), path, self.scope.until)? {
            if open_path(directory.as_fd(), &name)?.is_none() {
                self.report(ChangeKind::Deleted, file_type, &path.join(name), depth + 1)?;
            }
        }
        Ok(())
    }

    /// The path below the root, of one that a walk has.
    fn full(&self, path: &CStr) -> PathBuf {
        let below = Path::new(OsStr::from_bytes(path.to_bytes()));
        let below = below.strip_prefix(".").unwrap_or(below);
        if below.as_os_str().is_empty() {
            self.start.to_owned()
        } else {
            self.start.join(below)
        }
    }

    fn covered(&mut self, covered: BorrowedFd<'_>, bounds: Bounds) -> Result<bool, Errno> {
        let Some(found) = compare::look(covered, self.start)? else {
            return Ok(true);
        };
        if type_of(&found.1) != FileType::Directory {
            let start = self.start;
            self.covered_entry(&found.1, &|| compare::open_path(covered, start), start, 0)?;
            return Ok(true);
        }
        // The descriptor that was found is good for nothing but a look.
        let path = compare::c_path(self.start)?;
        match open_below(covered, &path) {
            Ok(top) => walk(top.as_fd(), bounds, &mut Covered(self)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn covered_entry(
        &mut self,
        stat: &Stat,
        open: &dyn Fn() -> Result<Option<OwnedFd>, Errno>,
        path: &Path,
        depth: usize,
    ) -> Result<(), Errno> {
        // What the user made there meanwhile has been reported, and stays.
        if compare::look(self.upper, path)?.is_some() || is_whiteout_stat(stat) {
            return Ok(());
        }
        let kind = match compare::look(self.image.as_fd(), path)? {
            None => ChangeKind::Added,
            Some(of_image) if compare::is_same(stat, open, &of_image, self.scope.until)? => return Ok(()),
            Some(_) => ChangeKind::Changed,
        };
        let most = self.scope.depth.unwrap_or(usize::MAX);
        if depth <= most {
            return self.report(kind, type_of(stat), path, depth);
        }
        // These are few, so their directories are reported for each of them.
        let above = path.ancestors().nth(depth - most).unwrap_or(self.start);
        self.report(ChangeKind::Changed, FileType::Directory, above, most)
    }
}

impl Visitor for Diff<'_> {
    fn enter(&mut self, directory: &OwnedFd, path: &CStr, depth: usize) -> Result<(), Errno> {
        let path = self.full(path);
        let stat = fstat(directory)?;
        let image = compare::look(self.image.as_fd(), &path)?;
        let in_image = image.is_some_and(|(_, image)| type_of(&image) == FileType::Directory);
        let above = self.hidden.last().copied().unwrap_or(self.hidden_at_start);
        let hidden = above || compare::is_opaque(directory)?;
        self.hidden.push(hidden);
        let open = || rustix::io::fcntl_dupfd_cloexec(directory, 0).map(Some);
        let own = self.difference(&stat, &open, &path)?;
        if self.scope.depth == Some(depth) {
            self.summed = Some(Summed {
                path: path.clone(),
                own,
                count: 0,
            });
        } else if let Some(kind) = own {
            self.report(kind, FileType::Directory, &path, depth)?;
        }
        if hidden && in_image {
            self.deleted_in(directory, &path, depth)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Errno> {
        let path = self
            .full(entry.above)
            .join(OsStr::from_bytes(entry.name.to_bytes()));
        let depth = self.hidden.len();
        self.entry(entry.parent, entry.name, &path, entry.stat, depth)
    }

    fn leave(&mut self, depth: usize) -> Result<(), Errno> {
        self.hidden.pop();
        if self.scope.depth != Some(depth) {
            return Ok(());
        }
        match self.summed.take() {
            Some(Summed { path, own, count }) if own.is_some() || count > 0 => (self.receive)(Change {
                kind: own.unwrap_or(ChangeKind::Changed),
                file_type: FileType::Directory,
                count: count + u64::from(own.is_some()),
                path: Path::new("/").join(path),
            }),
            _ => Ok(()),
        }
    }
}

// === impl Covered ===

impl Visitor for Covered<'_, '_> {
    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: usize) -> Result<(), Errno> {
        // Directories there only lead to the files.
        self.0.hidden.push(false);
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Errno> {
        let name = Path::new(OsStr::from_bytes(entry.name.to_bytes()));
        let path = self.0.full(entry.above).join(name);
        let depth = self.0.hidden.len();
        let open = || open_path(entry.parent.as_fd(), name);
        self.0.covered_entry(entry.stat, &open, &path, depth)
    }

    fn leave(&mut self, _: usize) -> Result<(), Errno> {
        self.0.hidden.pop();
        Ok(())
    }
}

fn type_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
