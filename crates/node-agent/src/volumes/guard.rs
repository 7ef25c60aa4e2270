/*!
The right to change a volume, and what it changes: the volume's directory with the wrapper, the
socket and the record.
*/

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use exec_wrapper::protocol::{NOTICE, SOCKET, WRAPPER};
use rootfs::files;
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{Volume, VolumeRecord, Volumes, lock, make_directory, open_directory};

/// Names while they are made.
pub(super) const WRAPPER_NEW: &str = "exec-wrapper.new";
const SOCKET_NEW: &str = "agent.sock.new";
const NOTICE_NEW: &str = "notice.new";
/// Mode of the program.
const PROGRAM_MODE: u32 = 0o555;

/// The right to change a volume: one call at a time, as CSI wants it.
#[derive(Debug)]
pub(crate) struct VolumeGuard<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) id: String,
}

// === impl VolumeGuard ===

impl VolumeGuard<'_> {
    /// Makes the volume's directory with record, wrapper and a socket that listens. May be
    /// repeated: the record on disk must then be the same.
    pub(crate) fn create(&self, record: &VolumeRecord) -> Result<(OwnedFd, UnixListener)> {
        let volume = make_directory(&self.volumes.directory, &self.id, Mode::RWXU)
            .context("make the volume's directory")?;
        record.write(&volume)?;
        let readable = Mode::from_raw_mode(0o755);
        let mount = make_directory(&volume, "mount", readable).context("make the volume's directory")?;
        rustix::fs::fchmod(&mount, readable).context("make the volume's directory readable")?;
        let source = files::open(&self.volumes.base, WRAPPER).context("open the wrapper")?;
        let mut source = File::from(source.context("the wrapper is missing")?);
        // After a power cut the file may be incomplete, and after an update old. If it is neither,
        // a full disk is not a reason not to serve the volume.
        if !has_program(&mut source, &mount).unwrap_or(false) {
            source.rewind().context("read the wrapper")?;
            copy_program(&mut source, &volume, Durable::No)?;
            renameat(&volume, WRAPPER_NEW, &mount, WRAPPER).context("put the wrapper into the volume")?;
        }
        let listener = listen(&volume, &mount)?;
        Ok((mount, listener))
    }

    /// Makes the volume known.
    pub(crate) fn publish(&self, record: VolumeRecord) -> Arc<Volume> {
        let volume = Arc::new(Volume::new(self.id.clone(), record));
        if let Some(before) = lock(&self.volumes.published).insert(self.id.clone(), Arc::clone(&volume)) {
            before.unpublished.cancel();
        }
        volume
    }

    /// Leaves a line for the log of a container that cannot connect.
    pub(crate) fn write_notice(&self, line: &str) -> Result<()> {
        let volume =
            open_directory(&self.volumes.directory, &self.id).context("open the volume's directory")?;
        let mount = open_directory(&volume, "mount").context("open the volume's directory")?;
        remove_file(&volume, NOTICE_NEW)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o444);
        let mut file = File::from(openat(&volume, NOTICE_NEW, flags, mode).context("make the notice")?);
        writeln!(file, "{line}").context("write the notice")?;
        rustix::fs::fchmod(&file, mode).context("make the notice readable")?;
        renameat(&volume, NOTICE_NEW, &mount, NOTICE).context("put the notice into the volume")
    }

    /// The record on disk.
    pub(crate) fn recorded(&self) -> Result<Option<VolumeRecord>> {
        match open_directory(&self.volumes.directory, &self.id) {
            Ok(volume) => VolumeRecord::read(&volume),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).context("open the volume's directory"),
        }
    }

    /// Ends the volume and removes its directory.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(volume) = lock(&self.volumes.published).remove(&self.id) {
            volume.unpublished.cancel();
        }
        let volume = match open_directory(&self.volumes.directory, &self.id) {
            Ok(volume) => volume,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e).context("open the volume's directory"),
        };
        // With whatever the pod put there, if it could: that must not keep the volume from going.
        rootfs::remove::tree(volume.as_fd(), "mount").context("remove the directory that the pod sees")?;
        for name in [WRAPPER_NEW, SOCKET_NEW, NOTICE_NEW] {
            remove_file(&volume, name)?;
        }
        VolumeRecord::remove(&volume)?;
        unlinkat(&self.volumes.directory, self.id.as_str(), AtFlags::REMOVEDIR)
            .context("remove the volume's directory")
    }
}

impl Drop for VolumeGuard<'_> {
    fn drop(&mut self) {
        lock(&self.volumes.busy).remove(&self.id);
    }
}

/// Whether a file must be whole after a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    No,
}

/// Whether the program is in `directory` as it should be.
fn has_program(source: &mut File, directory: &OwnedFd) -> Result<bool> {
    let Some(there) = files::open(directory, WRAPPER)?.map(File::from) else {
        return Ok(false);
    };
    let (wanted, found) = (source.metadata()?, there.metadata()?);
    if found.mode() & 0o7777 != PROGRAM_MODE || found.len() != wanted.len() {
        return Ok(false);
    }
    let (mut wanted, mut found) = (BufReader::new(source), BufReader::new(there));
    loop {
        let (left, right) = (wanted.fill_buf()?, found.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        wanted.consume(length);
        found.consume(length);
    }
}

/// Makes [`WRAPPER_NEW`] in `directory`, a copy of the program.
pub(super) fn copy_program(source: &mut File, directory: &OwnedFd, durable: Durable) -> Result<()> {
    remove_file(directory, WRAPPER_NEW)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(PROGRAM_MODE);
    let mut target = File::from(openat(directory, WRAPPER_NEW, flags, mode).context("make the wrapper")?);
    io::copy(source, &mut target).context("copy the wrapper")?;
    rustix::fs::fchmod(&target, mode).context("make the wrapper executable")?;
    if durable == Durable::Yes {
        target.sync_all().context("sync the wrapper")?;
    }
    Ok(())
}

/// Listens on the socket of a volume. It gets its name after it listens and its mode lets everyone
/// connect: a process that sees it can use it.
fn listen(volume: &OwnedFd, mount: &OwnedFd) -> Result<UnixListener> {
    remove_file(volume, SOCKET_NEW)?;
    // The path of the directory may be longer than a socket's address can be.
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET_NEW}", volume.as_raw_fd()))
        .context("bind the socket")?;
    // No pod sees it yet, so no process can have put a link to another file in its place.
    chmodat(volume, SOCKET_NEW, Mode::from_raw_mode(0o666), AtFlags::empty())
        .context("set the mode of the socket")?;
    renameat(volume, SOCKET_NEW, mount, SOCKET).context("name the socket")?;
    listener.set_nonblocking(true).context("set up the socket")?;
    Ok(listener)
}

fn remove_file(directory: &OwnedFd, name: &str) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("remove {name}")),
    }
}
