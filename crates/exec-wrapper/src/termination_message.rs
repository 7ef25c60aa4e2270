/*!
The container's termination message, which the pod's status shows of a container that ended
(`terminationMessagePath`).

The kubelet mounts an empty file of the node there. The wrapper opens it before the agent changes
the root: until then the path leads to the runtime's files, afterwards into the kept filesystem,
where the tenant decides what is at the path. The command does not inherit the descriptor: it
closes.
*/

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

/// Where the file is unless the pod says otherwise: the default of the API.
pub(crate) const DEFAULT_PATH: &str = "/dev/termination-log";
/// The part that the kubelet reads, in bytes (`MaxContainerTerminationMessageLength` in its
/// `pkg/kubelet/container`).
const MAX_BYTES: usize = 4096;

/// The file for the last words, if there is one.
#[derive(Debug)]
pub(crate) struct TerminationMessage(Option<OwnedFd>);

// === impl TerminationMessage ===

impl TerminationMessage {
    /// Opens the file. The wrapper goes on if the file does not exist or is not the kubelet's.
    pub(crate) fn at(path: &OsStr) -> Self {
        Self(open(path).ok())
    }

    /// Writes a message, cut to the length that the kubelet reads.
    pub(crate) fn write(&self, message: &str) {
        let Some(file) = &self.0 else { return };
        let end = message.floor_char_boundary(MAX_BYTES);
        let _ = rustix::io::write(file, &message.as_bytes()[..end]);
    }
}

fn open(path: &OsStr) -> Result<OwnedFd, Errno> {
    // A device or a FIFO is not opened to find out what it is.
    let what = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    require_mounted_file(&what)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    require_mounted_file(&statx(file.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?)?;
    Ok(file)
}

/// The kubelet's file is a mount of its own. Any other is the pod's, and the wrapper must not write
/// to it.
fn require_mounted_file(what: &rustix::fs::Statx) -> Result<(), Errno> {
    let regular = FileType::from_raw_mode(what.stx_mode.into()) == FileType::RegularFile;
    if regular && what.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}
