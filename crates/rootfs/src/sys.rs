/*!
The system calls that rustix does not offer as safe functions. The only unsafe code of the
workspace.
*/

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The same on all architectures.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
/// linux/nsfs.h: `_IOR(0xb7, 0x5, __u64)`
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_b705_u32 as libc::Ioctl;
/// linux/nsfs.h: `_IO(0xb7, 0x2)`
const NS_GET_PARENT: libc::Ioctl = 0xb702;
/// linux/mount.h
const LSMT_ROOT: u64 = u64::MAX;

/// `struct mnt_id_req` of linux/mount.h as of 6.11, where the last field came.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
    namespace: u64,
}

/// Gives the calling thread a root and working directory of its own, without which it cannot enter
/// a mount namespace. Cannot be undone: call it on a thread made for the purpose.
pub(crate) fn unshare_fs() -> Result<()> {
    // SAFETY: the function is unsafe because of `UnshareFlags::FILES`, which is not passed:
    // descriptors stay shared between threads.
    unsafe { unshare_unsafe(UnshareFlags::FS) }
}

/// Gives the calling thread a copy of its mount namespace.
pub(crate) fn unshare_mounts() -> Result<()> {
    // SAFETY: as in `unshare_fs`.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

/// Makes the calling thread act on file systems as this user and group, see setfsuid(2). Other
/// threads are not affected.
pub(crate) fn set_file_system_ids(user: u32, group: u32) -> Result<()> {
    // SAFETY: the calls take numbers and touch no memory. They report no error; with an invalid id
    // they change nothing and tell the present one.
    let now = unsafe {
        libc::setfsgid(group);
        libc::setfsuid(user);
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    if (now.0.cast_unsigned(), now.1.cast_unsigned()) == (user, group) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// The user namespace in which a user namespace was made. `PERM` if the caller is below that.
pub(crate) fn parent_namespace(namespace: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the call has no argument. A descriptor of something else is refused, or knows no such
    // number.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_PARENT) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel made this descriptor for this call (with close-on-exec set) and no other
    // code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the files of a detached mount the owners that a user namespace sees (mount_setattr(2),
/// "ID-mapped mounts"), and makes it private: a clone of a shared mount is its peer, and what is
/// mounted on the clone would be mounted on the original too.
pub(crate) fn map_owners(mount: impl AsFd, namespace: impl AsFd) -> Result<()> {
    let Ok(namespace) = u64::try_from(namespace.as_fd().as_raw_fd()) else {
        return Err(Errno::BADF);
    };
    set_mount_attributes(
        mount,
        &libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: libc::MS_PRIVATE,
            userns_fd: namespace,
        },
    )
}

/// Makes a detached mount writable. `NOSYS` before kernel 5.12.
pub(crate) fn make_writable(mount: impl AsFd) -> Result<()> {
    set_mount_attributes(
        mount,
        &libc::mount_attr {
            attr_set: 0,
            attr_clr: libc::MOUNT_ATTR_RDONLY,
            propagation: 0,
            userns_fd: 0,
        },
    )
}

fn set_mount_attributes(mount: impl AsFd, attributes: &libc::mount_attr) -> Result<()> {
    // SAFETY: the path is a string that ends, and `attributes` is valid for reading so many bytes
    // for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// A pidfd of the process that connected the socket, as it was when it connected. `None` where the
/// kernel does not offer it (before 6.5); `ESRCH` if that process is gone.
pub(crate) fn peer_pidfd(socket: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut pidfd: libc::c_int = -1;
    let Ok(mut length) = libc::socklen_t::try_from(size_of::<libc::c_int>()) else {
        return Err(Errno::OVERFLOW);
    };
    // SAFETY: `pidfd` and `length` are valid for writing for the length of the call, and `length`
    // is the size of `pidfd`. The kernel writes no more than that.
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
            // The process has been reaped, and another process may have its id by now.
            Some(Errno::SRCH | Errno::NODATA | Errno::INVAL) => Err(Errno::SRCH),
            Some(errno) => Err(errno),
            None => Err(Errno::IO),
        };
    }
    if pidfd < 0 {
        return Ok(None);
    }
    // SAFETY: the kernel made this descriptor for this call (with close-on-exec set) and no other
    // code has it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Whether a file system has file handles that can be opened again, see name_to_handle_at(2).
pub(crate) fn has_file_handles(file: impl AsFd) -> Result<bool> {
    let mut handle = libc::file_handle {
        handle_bytes: 0,
        handle_type: 0,
        f_handle: [],
    };
    let mut mount: libc::c_int = 0;
    // SAFETY: the path is a string that ends; `handle` and `mount` are valid for writing for the
    // length of the call, and the kernel writes no more of a handle than the no bytes that there is
    // room for.
    let result = unsafe {
        libc::name_to_handle_at(
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    match last_error() {
        _ if result == 0 => Ok(true),
        // There is one, and it needs more room.
        Errno::OVERFLOW => Ok(true),
        Errno::OPNOTSUPP => Ok(false),
        errno => Err(errno),
    }
}

const _: () = assert!(size_of::<Request>() == Request::SIZE as usize);

/// The id by which [`list_mounts`] and [`stat_mount`] know a mount namespace. An error where the
/// kernel does not know those calls for other namespaces (before 6.11).
pub(crate) fn mount_namespace_id(namespace: impl AsFd) -> Result<u64> {
    let mut id = 0_u64;
    // SAFETY: the kernel writes a `u64` to where `id` is, which is valid for writing for the length
    // of the call. If the descriptor is of something else, what is asked for is refused or
    // harmless: the number is in no other use.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) };
    if result == 0 { Ok(id) } else { Err(last_error()) }
}

/// Ids of mounts of a namespace, those after `after`, as many as there is room for. How many there
/// are.
pub(crate) fn list_mounts(namespace: u64, after: u64, ids: &mut [u64]) -> Result<usize> {
    let request = Request::new(namespace, LSMT_ROOT, after);
    // SAFETY: `request` is valid for reading, `ids` for writing so many ids; the kernel keeps
    // neither.
    let count = unsafe {
        libc::syscall(
            SYS_LISTMOUNT,
            &raw const request,
            ids.as_mut_ptr(),
            ids.len(),
            0_u32,
        )
    };
    usize::try_from(count).map_err(|_| last_error())
}

/// Attributes of a mount, as `struct statmount` of linux/mount.h. `OVERFLOW` if there is not enough
/// room.
pub(crate) fn stat_mount(namespace: u64, mount: u64, mask: u64, answer: &mut [u64]) -> Result<()> {
    let request = Request::new(namespace, mount, mask);
    // SAFETY: `request` is valid for reading, `answer` for writing so many bytes, and it is aligned
    // as the structure has to be; the kernel keeps neither. Every content of `answer` is valid.
    let result = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            answer.as_mut_ptr(),
            size_of_val(answer),
            0_u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

impl Request {
    const SIZE: u32 = 32;

    fn new(namespace: u64, mount: u64, parameter: u64) -> Self {
        Self {
            size: Self::SIZE,
            spare: 0,
            mount,
            parameter,
            namespace,
        }
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::{has_file_handles, peer_pidfd};

    /// Prints which it is past the harness: `cargo xtask test rootfs --kernel` shows it.
    #[test]
    fn a_kernel_without_pidfds_of_peers_says_so() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let known = peer_pidfd(&ours).unwrap().is_some();
        let said = format!("\nthis kernel: SO_PEERPIDFD is known: {known}\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }

    #[test]
    fn i2_file_systems_that_know_handles_are_told_from_those_that_do_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(has_file_handles(File::open(directory.path()).unwrap()).unwrap());
        assert!(!has_file_handles(File::open("/proc").unwrap()).unwrap());
    }
}
