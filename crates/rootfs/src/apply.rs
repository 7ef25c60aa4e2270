/*!
Carries out a plan inside a container's mount namespace: puts the new root on a staging directory of
the old one, moves the mounts, changes over.

Until the change-over no process of the container sees any of it, and a failure undoes everything. A
caller that is killed in between leaves a mount on the staging directory, which the next attempt
finds ([`clean`]).

Mounts are cloned, not moved, so that an attempt that fails half-way loses nothing. A clone stays in
the propagation group of its original (a slave stays a slave, a peer a peer). So originals and
clones are made private before they are unmounted; otherwise the unmount would propagate to the
node.
*/

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use crate::cached_stat;
use crate::namespace::NamespaceThread;
use crate::plan::{Move, Plan};
use crate::process::{Proc, ProcessError};
use crate::root::{Problem, Root, RootError};
use crate::sys;
use crate::table::{Flags, Table};

/// The staging directory in the old root. The old root goes away with the change-over.
pub(crate) const STAGING: &str = ".stoppablecontainer-root";
/// Mode of directories that are made for mountpoints: what runtimes use.
const MOUNTPOINT_MODE: Mode = Mode::from_bits_truncate(0o755);

/// A plan that could not be carried out. Everything was taken back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The container's mount table.
    #[error("cannot examine the container")]
    Table(#[from] ProcessError),
    /// The container has no root mount.
    #[error("the mount table of the container has no root")]
    NoRoot,
    /// A place in the kept filesystem.
    #[error("cannot use the kept filesystem")]
    Root(#[from] RootError),
    /// A mount.
    #[error("cannot {what} {path}", path = path.display())]
    Mount {
        /// What was tried.
        what: &'static str,
        /// With which mount of the container.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// Another step.
    #[error("cannot {0}")]
    System(&'static str, #[source] Errno),
}

/// Makes `new_root` (a detached mount) the root of the container whose mount namespace the thread
/// is in, with everything that the container has mounted. `working_directory` is made in it if it
/// is missing. Calls `done` with the name of every step.
pub(crate) fn apply(
    thread: &NamespaceThread,
    proc: &Proc,
    new_root: OwnedFd,
    working_directory: Option<&Path>,
    done: &dyn Fn(&'static str),
) -> Result<(), ApplyError> {
    let old_root = Root::of_this_thread().map_err(step("open the container's root"))?;
    let table = proc.own_mounts()?;
    let plan = Plan::new(&table).ok_or(ApplyError::NoRoot)?;
    // Nothing that is mounted on it from here on may show up elsewhere, or pivot_root refuses.
    at_mount(proc, old_root.as_fd(), |path| {
        mount_change(path, MountPropagationFlags::PRIVATE)
    })
    .map_err(step("separate the container's root"))?;
    done("separate the root");
    // Before the new root is attached: a recursive clone must not contain it.
    let clones = plan
        .moves
        .iter()
        .map(|m| clone(&old_root, m))
        .collect::<Result<Vec<_>, _>>()?;
    done("clone the mounts");
    let staging = staging(thread, proc, &old_root, plan.flags, done)?;
    done("make the staging directory");
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&new_root, "", &staging, "", empty).map_err(step("attach the kept filesystem"))?;
    done("attach the new root");
    let new_root = Root::new(new_root).without(plan.foreign.clone());
    let filled = fill(proc, &new_root, &plan, clones, working_directory, done)
        .and_then(|()| change_over(new_root.as_fd(), done));
    if let Err(error) = filled {
        if let Err(error) = detach(proc, new_root.as_fd()) {
            tracing::warn!(%error, "cannot undo the attempt to attach a kept filesystem");
        }
        return Err(error);
    }
    // The container runs on its new root from here on. A failure leaves the old one on top of it,
    // invisible to the container's processes; `clean` takes it away.
    detach(proc, old_root.as_fd()).map_err(step("detach the container's old root"))?;
    done("detach the old root");
    Ok(())
}

/// Takes away what an interrupted [`apply`] left. The thread is in the container's namespace;
/// `seen` is the mount table as a process of the container sees it.
pub(crate) fn clean(_thread: &NamespaceThread, proc: &Proc, seen: &Table) -> Result<(), ApplyError> {
    let top = Root::of_this_thread().map_err(step("open the container's root"))?;
    let own = proc.own_mounts()?;
    let root = own.root().ok_or(ApplyError::NoRoot)?;
    let kept = seen
        .mounts()
        .iter()
        .find(|m| m.mountpoint == Path::new("/") && m.is_kept_root());
    if kept.is_some_and(|kept| kept.id == root.parent && kept.id != root.id) {
        return detach(proc, top.as_fd()).map_err(step("detach the container's old root"));
    }
    let staging = Path::new("/").join(STAGING);
    // A volume of the pod may be there too: its author chose the path.
    for _ in own
        .children(root.id)
        .filter(|m| m.mountpoint == staging && m.is_kept_root())
    {
        let mounted = top.open_no_links(&staging, OFlags::PATH | OFlags::DIRECTORY)?;
        detach(proc, mounted.as_fd()).map_err(step("detach an interrupted attempt"))?;
    }
    Ok(())
}

fn clone(old_root: &Root, planned: &Move) -> Result<OwnedFd, ApplyError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    let path = planned.path.strip_prefix("/").unwrap_or(&planned.path);
    open_tree(old_root, path, flags).map_err(on("clone the mount", planned))
}

fn staging(
    thread: &NamespaceThread,
    proc: &Proc,
    old_root: &Root,
    flags: Flags,
    done: &dyn Fn(&'static str),
) -> Result<OwnedFd, ApplyError> {
    let failed = step("make the staging directory");
    match make_staging(old_root) {
        Err(Errno::ROFS) if flags.read_only => match make_staging_in_clone(old_root, done) {
            Err(Errno::NOSYS) => make_staging_behind(thread, proc, flags, done)?,
            result => result.map_err(&failed)?,
        },
        result => result.map_err(&failed)?,
    }
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(old_root, STAGING, open, Mode::empty()).map_err(failed)
}

fn make_staging(root: &Root) -> Result<(), Errno> {
    match mkdirat(root, STAGING, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// The read-only root of a container is a writable file system behind a read-only mount. The mount
/// must stay as it is: an attempt that died while it was writable would leave it so, and the next
/// one take that for what the container was given. So a detached clone is made writable, which goes
/// with its descriptor whatever happens.
fn make_staging_in_clone(old_root: &Root, done: &dyn Fn(&'static str)) -> Result<(), Errno> {
    // With what is mounted below, as the kernel clones no mount alone that has locked ones on it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(old_root, "", flags)?;
    sys::make_writable(&clone)?;
    done("make a copy of the root writable");
    make_staging(&Root::new(clone))
}

/// The same before kernel 5.12, where only an attached mount can be changed: in a copy of the
/// namespace, which goes with this thread. A copy of a namespace of another user namespace would
/// have its mounts locked.
fn make_staging_behind(
    thread: &NamespaceThread,
    proc: &Proc,
    flags: Flags,
    done: &dyn Fn(&'static str),
) -> Result<(), ApplyError> {
    let failed = step("make the staging directory in the container's read-only root");
    let container = proc.own_namespace()?;
    thread.enter_private_copy().map_err(&failed)?;
    let copy = Root::of_this_thread().map_err(&failed)?;
    let writable = MountFlags::BIND
        | to_mount_flags(Flags {
            read_only: false,
            ..flags
        });
    in_directory(&copy, || mount_remount(".", writable, "")).map_err(&failed)?;
    done("make a copy of the root writable");
    make_staging(&copy).map_err(&failed)?;
    thread
        .enter(&container)
        .map_err(step("go back to the container's mount namespace"))
}

fn fill(
    proc: &Proc,
    new_root: &Root,
    plan: &Plan,
    clones: Vec<OwnedFd>,
    working_directory: Option<&Path>,
    done: &dyn Fn(&'static str),
) -> Result<(), ApplyError> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    for (planned, clone) in plan.moves.iter().zip(clones) {
        let directory = cached_stat::is_directory(proc, &clone).map_err(on("examine the mount", planned))?;
        let target = match (directory, planned.real_directory) {
            (true, true) => new_root.create_real_directory(&planned.path, MOUNTPOINT_MODE)?,
            (true, false) => new_root.create_mountpoint(&planned.path, MOUNTPOINT_MODE)?,
            (false, _) => new_root.create_file(&planned.path, MOUNTPOINT_MODE)?,
        };
        // What is read below /proc must be the kernel's, by whatever links of the image it is
        // reached (CVE-2019-16884).
        let place = cached_stat::of(&target).map_err(on("examine the mount point", planned))?;
        if !planned.real_directory && plan.procs.contains(&place.device) {
            return Err(on("attach the mount, as its mount point is in /proc:", planned)(
                Errno::ACCESS,
            ));
        }
        move_mount(&clone, "", &target, "", empty).map_err(on("attach the mount", planned))?;
        done("attach a mount");
    }
    // In a volume the runtime has made it.
    if let Some(path) = working_directory.filter(|path| !plan.is_mounted(path)) {
        match new_root.create_directory(path, MOUNTPOINT_MODE) {
            // Entering it shows whether it is there.
            Err(RootError {
                problem: Problem::Foreign(_),
                ..
            }) => {}
            result => drop(result?),
        }
        done("make the working directory");
    }
    let flags = to_mount_flags(plan.flags);
    if !flags.is_empty() {
        in_directory(new_root, || mount_remount(".", MountFlags::BIND | flags, ""))
            .map_err(step("restrict the kept filesystem as the container's root is"))?;
    }
    Ok(())
}

fn change_over(new_root: BorrowedFd<'_>, done: &dyn Fn(&'static str)) -> Result<(), ApplyError> {
    fchdir(new_root).map_err(step("enter the kept filesystem"))?;
    // The old root ends up on top of the new one, from where it is detached without needing a place
    // in it. Nothing after this may fail: there is no way back.
    pivot_root(".", ".").map_err(step("make the kept filesystem the container's root"))?;
    done("change over");
    Ok(())
}

/// Unmounts a mount with all below it, without propagation.
fn detach(proc: &Proc, mount: BorrowedFd<'_>) -> Result<(), Errno> {
    at_mount(proc, mount, |path| {
        mount_change(path, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        unmount(path, UnmountFlags::DETACH)
    })
}

/// Runs `work` with a path of a mount, for calls that do not take descriptors. The path goes
/// through the node's /proc, so that the kernel does not ask the mount's file system whether the
/// caller may enter it.
fn at_mount(
    proc: &Proc,
    mount: BorrowedFd<'_>,
    work: impl FnOnce(&str) -> Result<(), Errno>,
) -> Result<(), Errno> {
    in_directory(proc, || work(&format!("thread-self/fd/{}", mount.as_raw_fd())))
}

/// Runs `work` with `directory` as the thread's working directory, for calls that know no
/// descriptors.
fn in_directory(directory: impl AsFd, work: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    fchdir(directory)?;
    work()
}

fn to_mount_flags(flags: Flags) -> MountFlags {
    let mut mount = MountFlags::empty();
    mount.set(MountFlags::RDONLY, flags.read_only);
    mount.set(MountFlags::NOSUID, flags.no_suid);
    mount.set(MountFlags::NODEV, flags.no_dev);
    mount.set(MountFlags::NOEXEC, flags.no_exec);
    mount
}

fn step(what: &'static str) -> impl Fn(Errno) -> ApplyError {
    move |errno| ApplyError::System(what, errno)
}

fn on<'a>(what: &'static str, planned: &'a Move) -> impl Fn(Errno) -> ApplyError + 'a {
    move |source| ApplyError::Mount {
        what,
        path: planned.path.clone(),
        source,
    }
}
