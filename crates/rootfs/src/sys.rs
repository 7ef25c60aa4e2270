/*!
The system calls that rustix does not offer as safe functions. The only unsafe
code of the workspace.
*/

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread a root and working directory of its own, without which it cannot enter a mount
/// namespace. Cannot be undone: call it on a thread made for the purpose.
pub(crate) fn unshare_fs() -> Result<()> {
    // SAFETY: the function is unsafe because of `UnshareFlags::FILES`, which is not passed: descriptors stay shared
    // between threads.
    unsafe { unshare_unsafe(UnshareFlags::FS) }
}

/// Gives the calling thread a copy of its mount namespace.
pub(crate) fn unshare_mounts() -> Result<()> {
    // SAFETY: as in `unshare_fs`.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

/// A pidfd of the process that connected the socket, as it was when it connected. `None` where the kernel does
/// not offer it (before 6.5); `ESRCH` if that process is gone.
pub(crate) fn peer_pidfd(socket: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut pidfd: libc::c_int = -1;
    let Ok(mut length) = libc::socklen_t::try_from(size_of::<libc::c_int>()) else {
        return Err(Errno::OVERFLOW);
    };
    // SAFETY: `pidfd` and `length` are valid for writing for the length of the call, and `length` is the size of
    // `pidfd`. The kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return match Errno::from_io_error(&error) {
            // The kernel does not know the option.
            Some(Errno::NOPROTOOPT) => Ok(None),
            // The process has been reaped, and its id may be somebody else's by now.
            Some(Errno::SRCH | Errno::NODATA | Errno::INVAL) => Err(Errno::SRCH),
            Some(errno) => Err(errno),
            None => Err(Errno::IO),
        };
    }
    if pidfd < 0 {
        return Ok(None);
    }
    // SAFETY: the kernel made this descriptor for this call (with close-on-exec set) and nobody else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}
