/*!
Work inside another mount namespace.

A thread can be in only one, and cannot share its root directory with other threads while it changes
over. So such work runs on a thread of its own that ends with it; nothing of the calling thread
changes.
*/

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities};

use crate::sys;
use crate::user_namespace::RootIds;

/// A mount namespace.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

/// A thread of its own that may change over to other namespaces. Proof that the caller runs on one.
#[derive(Debug)]
pub struct NamespaceThread(());

// === impl Namespace ===

impl Namespace {
    /// `fd` is an open `/proc/PID/ns/mnt`.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Device and inode: equal for equal namespaces.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl NamespaceThread ===

impl NamespaceThread {
    /// Runs `work` on a thread that may change namespaces, and waits for it.
    ///
    /// # Errors
    ///
    /// What the thread's start, or giving it a root directory of its own, failed with. If `work`
    /// panics, so does this.
    pub fn run<T: Send>(work: impl FnOnce(&Self) -> T + Send) -> Result<T, Errno> {
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("thread".to_owned());
            let thread = builder
                .spawn_scoped(scope, || {
                    sys::unshare_fs()?;
                    Ok(work(&Self(())))
                })
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Enters a namespace. Root and working directory of the thread are then the root of the
    /// namespace.
    pub fn enter(&self, namespace: &Namespace) -> Result<(), Errno> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
    }

    /// From here on, the thread's files belong to this user and group, and it may still do to files
    /// what root may. Without it the kernel makes no file on an idmapped mount that does not map
    /// the node's root (`EOVERFLOW`, see path_resolution(7) and mount_setattr(2)).
    ///
    /// A side effect on the whole process: it is not dumpable any more (setfsuid and
    /// `PR_SET_DUMPABLE` in prctl(2)).
    #[expect(clippy::unused_self, reason = "it is proof that the thread is of that kind")]
    pub(crate) fn act_as(&self, root: RootIds) -> Result<(), Errno> {
        sys::set_file_system_ids(root.user, root.group)?;
        // The change took those for files from the effective set (capabilities(7), "Effect of user
        // ID changes on capabilities").
        let mut sets = capabilities(None)?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets)
    }

    /// Leaves for a copy of the present namespace that nothing propagates into or out of, and that
    /// goes with the thread.
    pub fn enter_private_copy(&self) -> Result<(), Errno> {
        sys::unshare_mounts()?;
        let all = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", all)
    }
}
