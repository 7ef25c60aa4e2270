/*!
Processes by descriptor.

A process id identifies a process only while the process lives. So a peer is held by a pidfd from
the moment that it connected, and what is read about it from /proc counts only if the process is
still alive afterwards.
*/

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstatfs, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Namespace;
use crate::cached_stat;
use crate::sys;
use crate::table::{self, Mount, Table, TableError};
use crate::user_namespace::{IdMaps, IdRange, UserNamespace};

/// Largest small file that is read from /proc, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The node's /proc, opened once: whatever a container mounts over its own does not matter.
#[derive(Clone, Debug)]
pub struct Proc {
    fd: Arc<OwnedFd>,
}

/// A process, known by a pidfd.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Something about a process that cannot be learned.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It ended.
    #[error("the process has ended")]
    Gone,
    /// /proc is not a procfs.
    #[error("/proc is not a proc file system")]
    NotProc,
    /// What the kernel said.
    #[error("{0}")]
    System(&'static str, #[source] Errno),
    /// Its mount table.
    #[error(transparent)]
    Table(#[from] TableError),
}

// === impl Proc ===

impl Proc {
    /// Opens /proc of the calling process.
    pub fn open() -> Result<Self, ProcessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc", flags, Mode::empty()).map_err(system("cannot open /proc"))?;
        let kind = fstatfs(&fd).map_err(system("cannot examine /proc"))?.f_type;
        if kind != rustix::fs::PROC_SUPER_MAGIC {
            return Err(ProcessError::NotProc);
        }
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Opens something below /proc.
    pub fn open_at(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&*self.fd, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The calling thread's mount table.
    pub fn own_mounts(&self) -> Result<Table, ProcessError> {
        Ok(Table::read(self.open_own_mounts()?)?)
    }

    /// The first mount of the calling thread's table that is of this device, and what is looked
    /// for. The node's table may be long, so only lines of that device are taken apart.
    pub(crate) fn find_own_mount_of(
        &self,
        device: (u32, u32),
        is_it: impl Fn(&Mount) -> bool,
    ) -> Result<Option<Mount>, ProcessError> {
        let wanted = format!("{}:{}", device.0, device.1);
        let is_of_device =
            |line: &Vec<u8>| line.split(|byte| *byte == b' ').nth(2) == Some(wanted.as_bytes());
        let lines = table::lines(self.open_own_mounts()?).filter_map(Result::ok);
        let mounts = lines.filter(is_of_device).filter_map(|line| Mount::parse(&line));
        Ok({ mounts }.find(is_it))
    }

    /// The first kept root of the calling thread's table.
    pub(crate) fn find_own_kept_root(&self) -> Result<Option<Mount>, ProcessError> {
        let mut mounts = table::mounts(self.open_own_mounts()?).filter_map(Result::ok);
        Ok(mounts.find(|mount| mount.mountpoint.as_os_str() == "/" && mount.is_kept_root()))
    }

    fn open_own_mounts(&self) -> Result<OwnedFd, ProcessError> {
        self.open_at("thread-self/mountinfo", OFlags::RDONLY)
            .map_err(system("cannot open mountinfo"))
    }

    /// The mount namespace that the calling thread is in.
    pub(crate) fn own_namespace(&self) -> Result<Namespace, ProcessError> {
        let fd = self
            .open_at("thread-self/ns/mnt", OFlags::RDONLY)
            .map_err(system("cannot open the mount namespace"))?;
        Ok(Namespace::new(fd))
    }

    /// The user namespace of the caller.
    pub fn own_user_namespace(&self) -> Result<UserNamespace, ProcessError> {
        let fd = self
            .open_at("self/ns/user", OFlags::RDONLY)
            .map_err(system("cannot open the user namespace"))?;
        Ok(UserNamespace::new(fd))
    }

    /// The mount namespace of the node's init.
    pub fn init_namespace(&self) -> Result<Namespace, ProcessError> {
        let fd = self
            .open_at("1/ns/mnt", OFlags::RDONLY)
            .map_err(system("cannot open the node's mount namespace"))?;
        Ok(Namespace::new(fd))
    }

    /// The root of the node's init.
    pub fn init_root(&self) -> Result<crate::Root, ProcessError> {
        let fd = self
            .open_at("1/root", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(system("cannot open the node's root"))?;
        Ok(crate::Root::new(fd))
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl Process ===

impl Process {
    /// Who connected this Unix socket.
    pub fn of_peer(socket: impl AsFd) -> Result<Self, ProcessError> {
        let peer =
            rustix::net::sockopt::socket_peercred(&socket).map_err(system("cannot identify the peer"))?;
        let pidfd = match sys::peer_pidfd(&socket).map_err(gone_or("cannot identify the peer"))? {
            Some(pidfd) => pidfd,
            // Before kernel 6.5. Another process may have got the id since the connect, so callers
            // compare what they know of the peer (its cgroup) afterwards.
            None => match pidfd_open(peer.pid, PidfdFlags::empty()) {
                Ok(pidfd) => pidfd,
                Err(Errno::SRCH) => return Err(ProcessError::Gone),
                Err(e) => return Err(ProcessError::System("cannot open the process", e)),
            },
        };
        Ok(Self { pid: peer.pid, pidfd })
    }

    /// A process by its id.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd }),
            Err(Errno::SRCH | Errno::INVAL) => Err(ProcessError::Gone),
            Err(e) => Err(ProcessError::System("cannot open the process", e)),
        }
    }

    /// Its id, for messages.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(
            poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0
                })
            ),
            Ok(0)
        )
    }

    /// Its mount table.
    pub fn mounts(&self, proc: &Proc) -> Result<Table, ProcessError> {
        let file = self.open_below(proc, "mountinfo", OFlags::RDONLY)?;
        let table = Table::read(file)?;
        self.still(table)
    }

    /// Its mount table, to be read mount by mount. What was read counts if the process is alive
    /// afterwards.
    pub(crate) fn open_mounts(&self, proc: &Proc) -> Result<OwnedFd, ProcessError> {
        self.open_below(proc, "mountinfo", OFlags::RDONLY)
    }

    /// Its mount namespace.
    pub fn mount_namespace(&self, proc: &Proc) -> Result<Namespace, ProcessError> {
        let fd = self.open_below(proc, "ns/mnt", OFlags::RDONLY)?;
        self.still(Namespace::new(fd))
    }

    /// Its root directory.
    pub fn root(&self, proc: &Proc) -> Result<crate::Root, ProcessError> {
        let fd = self.open_below(proc, "root", OFlags::PATH | OFlags::DIRECTORY)?;
        self.still(crate::Root::new(fd))
    }

    /// The id of the mount that its root is in, as its mount table has it.
    pub(crate) fn root_mount(&self, proc: &Proc) -> Result<u64, ProcessError> {
        let seen = cached_stat::through(proc, format!("{}/root", self.id()))
            .map_err(gone_or("cannot examine its root directory"))?;
        self.still(seen.mount)
    }

    /// Path of its working directory as it sees it. `None` if that has no path below its root.
    pub fn working_directory(&self, proc: &Proc) -> Result<Option<PathBuf>, ProcessError> {
        use std::os::unix::ffi::OsStringExt;
        let link = format!("{}/cwd", self.id());
        let path = readlinkat(proc.as_fd(), link, Vec::new())
            .map_err(gone_or("cannot read its working directory"))?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes()));
        let path = self.still(path)?;
        // The kernel writes `(unreachable)/x` for a directory outside, and appends a word to one
        // that was deleted.
        Ok(path.is_absolute().then_some(path))
    }

    /// Its user namespace.
    pub fn user_namespace(&self, proc: &Proc) -> Result<UserNamespace, ProcessError> {
        let fd = self.open_below(proc, "ns/user", OFlags::RDONLY)?;
        self.still(UserNamespace::new(fd))
    }

    /// The ids of its user namespace, as the caller knows them.
    pub fn id_maps(&self, proc: &Proc) -> Result<IdMaps, ProcessError> {
        let read = |name: &str| {
            let text = self.read_small(proc, name, "cannot read the ids of its user namespace")?;
            IdRange::parse(&text).ok_or(ProcessError::System(
                "cannot read the ids of its user namespace",
                Errno::INVAL,
            ))
        };
        let maps = IdMaps {
            users: read("uid_map")?,
            groups: read("gid_map")?,
        };
        self.still(maps)
    }

    /// Whether it is in the user namespace of the calling process.
    pub fn shares_user_namespace(&self, proc: &Proc) -> Result<bool, ProcessError> {
        self.is_in(proc, None)
    }

    /// Whether it is in this user namespace, or without one in that of the calling process.
    pub fn is_in(&self, proc: &Proc, users: Option<&UserNamespace>) -> Result<bool, ProcessError> {
        let identity = |path: String| {
            let stat = rustix::fs::statat(proc, path, rustix::fs::AtFlags::empty());
            stat.map(|stat| (stat.st_dev, stat.st_ino))
                .map_err(gone_or("cannot examine its user namespace"))
        };
        let theirs = identity(format!("{}/ns/user", self.id()))?;
        let wanted = match users {
            Some(users) => users
                .identity()
                .map_err(system("cannot examine a user namespace"))?,
            None => identity("self/ns/user".to_owned())?,
        };
        self.still(theirs == wanted)
    }

    /// What is learned of a process that is in this user namespace, or without one in that of the
    /// calling process. `None` if it is in another: a process that made its user namespace chooses
    /// the mounts there and their names.
    pub(crate) fn read_if_in<T>(
        &self,
        proc: &Proc,
        users: Option<&UserNamespace>,
        learn: impl FnOnce() -> Result<T, ProcessError>,
    ) -> Result<Option<T>, ProcessError> {
        // Asked before, as such a process may have very many mounts to read. And after, when the
        // answer counts: a process may leave for a user namespace below its own at any time, but
        // never comes back.
        if !self.is_in(proc, users)? {
            return Ok(None);
        }
        let learned = learn()?;
        Ok(self.is_in(proc, users)?.then_some(learned))
    }

    /// Its `/proc/PID/cgroup`.
    pub fn cgroup(&self, proc: &Proc) -> Result<String, ProcessError> {
        self.read_small(proc, "cgroup", "cannot read its cgroup")
    }

    fn read_small(&self, proc: &Proc, name: &str, problem: &'static str) -> Result<String, ProcessError> {
        let file = self.open_below(proc, name, OFlags::RDONLY)?;
        let mut text = Vec::new();
        match File::from(file).take(MAX_BYTES).read_to_end(&mut text) {
            Ok(_) => self.still(String::from_utf8_lossy(&text).into_owned()),
            Err(e) => Err(gone_or(problem)(Errno::from_io_error(&e).unwrap_or(Errno::IO))),
        }
    }

    fn open_below(&self, proc: &Proc, name: &str, flags: OFlags) -> Result<OwnedFd, ProcessError> {
        proc.open_at(format!("{}/{name}", self.id()), flags)
            .map_err(gone_or("cannot open its entry in /proc"))
    }

    /// The value, if the process it was learned of still lives: then it was learned of no other.
    fn still<T>(&self, value: T) -> Result<T, ProcessError> {
        if self.is_alive() {
            Ok(value)
        } else {
            Err(ProcessError::Gone)
        }
    }
}

impl AsFd for Process {
    /// The pidfd: readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn system(what: &'static str) -> impl Fn(Errno) -> ProcessError {
    move |errno| ProcessError::System(what, errno)
}

fn gone_or(what: &'static str) -> impl Fn(Errno) -> ProcessError {
    move |errno| match errno {
        Errno::NOENT | Errno::SRCH => ProcessError::Gone,
        errno => ProcessError::System(what, errno),
    }
}
