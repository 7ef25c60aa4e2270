/*!
Work inside another mount namespace.

A thread can be in only one, and cannot share its root directory with other threads while it changes
over. So such work runs on a thread of its own that ends with it; nothing of the calling thread
changes.
*/

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

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

    /// Leaves for a copy of the present namespace that nothing propagates into or out of, and that
    /// goes with the thread.
    pub fn enter_private_copy(&self) -> Result<(), Errno> {
        sys::unshare_mounts()?;
        let all = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", all)
    }
}
