/*!
Reads a stream of [`crate::pack`] into a directory, and writes nothing outside of it.

The stream may come from an image that is hostile. Every directory on the way is opened by its name
in the one above, and a link is never followed. A hard link can only lead to a file of the same
copy. A file is written under a temporary name and renamed when it is complete.
*/

mod attributes;
mod limited;
mod reasons;
mod target;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use kept_files::frame;
use kept_files::path::escape;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, linkat, makedev, mkdirat, mknodat, openat, renameat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

pub use self::target::Target;

use self::attributes::{Attributes, id};
use self::limited::Limited;
use self::reasons::{in_the_way, reason, reason_of};

use crate::{MAX_DEPTH, TOP, Tally, Watch};

/// Bytes that are written at once, and compared with zeros.
const CHUNK: usize = 64 << 10;
/// Most bytes of the stream that describe one file. A long name, and the parts of a sparse file.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// What is kept of a file besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Users and groups. Only root can do this.
    pub owners: bool,
    /// Modes. Otherwise the process's umask takes bits away.
    pub modes: bool,
    /// The bits set-user-ID and set-group-ID, where owners are kept.
    pub set_id: bool,
    /// Devices and FIFOs.
    pub special: bool,
}

/// Why the files were not written, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The copy ended at this file.
    #[error("cannot write {path}: {error}")]
    Write {
        /// The path of the file.
        path: String,
        /// The reason.
        error: String,
    },
    /// The stream is not complete. What was complete in it is written.
    #[error("{0}")]
    Incomplete(String),
    /// The stream is not one that [`crate::pack`] writes.
    #[error("the files arrive in an unexpected form: {0}")]
    Malformed(String),
    /// The caller ended it.
    #[error("interrupted")]
    Stopped,
}

struct Unpack<'a> {
    target: Target,
    keep: Keep,
    umask: Mode,
    watch: &'a mut dyn Watch,
    tally: Tally,
    /// Directories from the target to the last one that was used.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// Directories that were made, and get their attributes at the end.
    made: Vec<(Vec<Vec<u8>>, Attributes)>,
    /// Files that were made: device and inode.
    files: HashSet<(u64, u64)>,
    temporary: u64,
}

/// Writes the files of a stream.
///
/// # Errors
/// Why not everything was written. No file is written in part.
pub fn unpack(
    target: Target,
    from: impl Read,
    keep: Keep,
    watch: &mut dyn Watch,
) -> Result<Tally, UnpackError> {
    // umask(2) reads the mask only by setting another one.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(umask);
    let mut unpack = Unpack {
        target,
        keep,
        umask,
        watch,
        tally: Tally::default(),
        open: Vec::new(),
        made: Vec::new(),
        files: HashSet::new(),
        temporary: 0,
    };
    let read = unpack.read(from);
    // Of an incomplete copy too: the directories would keep the modes that are only right for now.
    let ended = unpack.end();
    read.and(ended).map(|()| unpack.tally)
}

// === impl Unpack ===

impl Unpack<'_> {
    fn read(&mut self, from: impl Read) -> Result<(), UnpackError> {
        let limited = Limited {
            from: frame::Reader::new(from),
            left: std::rc::Rc::default(),
            problem: std::rc::Rc::default(),
        };
        let (left, problem) = (limited.left.clone(), limited.problem.clone());
        let wrong = |error: &io::Error| match problem.borrow_mut().take() {
            Some(problem) => UnpackError::Incomplete(problem),
            None => UnpackError::Malformed(error.to_string()),
        };
        let mut archive = Archive::new(limited);
        let mut entries = archive.entries().map_err(|error| wrong(&error))?;
        loop {
            if self.watch.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            left.set(MAX_DESCRIPTION);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(|error| wrong(&error))?;
            left.set(u64::MAX);
            self.entry(&mut entry, &wrong)?;
        }
        // Only the end of the frames says that nothing is missing.
        left.set(MAX_DESCRIPTION);
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(|error| wrong(&error))?;
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        wrong: &dyn Fn(&io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let names = self.names(&entry.path_bytes())?;
        let header = entry.header();
        let attributes = || -> io::Result<Attributes> {
            Ok(Attributes {
                mode: header.mode()? & 0o7777,
                uid: id(header.uid()?)?,
                gid: id(header.gid()?)?,
                mtime: i64::try_from(header.mtime()?).map_err(io::Error::other)?,
            })
        };
        let attributes = attributes().map_err(|error| wrong(&error))?;
        let kind = header.entry_type();
        if names.is_empty() {
            return match kind {
                EntryType::Directory => Ok(()),
                _ => Err(self.fault(&names, "it is not a directory")),
            };
        }
        let (parent, own) = self.parent(&names)?;
        match kind {
            EntryType::Directory => return self.directory(&parent, &own, names, attributes),
            EntryType::Regular | EntryType::GNUSparse | EntryType::Continuous => {
                self.regular(entry, wrong, &parent, &own, &names, attributes)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.replace(&parent, &own, &names, |temporary| {
                    symlinkat(&target[..], &parent, temporary)
                })?;
                self.attributes_of_link(&parent, &own, attributes);
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.hard_link(&target, &parent, &own, &names)?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let device = |header: &tar::Header| -> io::Result<_> {
                    let (major, minor) = (header.device_major()?, header.device_minor()?);
                    Ok(makedev(major.unwrap_or(0), minor.unwrap_or(0)))
                };
                let device = device(entry.header()).map_err(|error| wrong(&error))?;
                if !self.special(kind, device, &parent, &own, &names, attributes)? {
                    return Ok(());
                }
            }
            _ => return Err(UnpackError::Malformed("a file of an unknown type".to_owned())),
        }
        self.tally.files += 1;
        self.watch.progress(self.tally);
        Ok(())
    }

    /// The components of a name in the archive below the target's directory.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, UnpackError> {
        let bad = || UnpackError::Malformed(format!("the name {}", escape(path)));
        let path_of = path.strip_suffix(b"/").unwrap_or(path);
        let mut components = path_of.split(|byte| *byte == b'/');
        if components.next() != Some(TOP) {
            return Err(bad());
        }
        let mut names: Vec<Vec<u8>> = self.target.name.iter().cloned().collect();
        for component in components {
            if matches!(component, b"" | b"." | b"..") || component.contains(&0) {
                return Err(bad());
            }
            names.push(component.to_vec());
        }
        if names.len() > MAX_DEPTH + 2 {
            return Err(bad());
        }
        Ok(names)
    }

    /// The directory that a file is in, and the file's name.
    fn parent(&mut self, names: &[Vec<u8>]) -> Result<(OwnedFd, Vec<u8>), UnpackError> {
        let (own, above) = names
            .split_last()
            .ok_or_else(|| UnpackError::Malformed("a file without a name".to_owned()))?;
        let common = self
            .open
            .iter()
            .zip(above)
            .take_while(|((name, _), wanted)| name == *wanted);
        let common = common.count();
        self.open.truncate(common);
        for (at, name) in above.iter().enumerate().skip(common) {
            let directory = self
                .open
                .last()
                .map_or(&self.target.directory, |(_, directory)| directory);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = openat(directory, &name[..], flags, Mode::empty());
            let directory = opened.map_err(|error| self.fault(&above[..=at], in_the_way(error)))?;
            self.open.push((name.clone(), directory));
        }
        let directory = self
            .open
            .last()
            .map_or(&self.target.directory, |(_, directory)| directory);
        let directory = directory
            .try_clone()
            .map_err(|error| self.fault(names, error.to_string()))?;
        Ok((directory, own.clone()))
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        own: &[u8],
        names: Vec<Vec<u8>>,
        attributes: Attributes,
    ) -> Result<(), UnpackError> {
        match mkdirat(parent, own, Mode::RWXU) {
            Ok(()) => {
                self.made.push((names, attributes));
                Ok(())
            }
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = openat(parent, own, flags, Mode::empty());
                opened
                    .map(drop)
                    .map_err(|error| self.fault(&names, in_the_way(error)))
            }
            Err(error) => Err(self.fault(&names, reason(error))),
        }
    }

    fn regular<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        wrong: &dyn Fn(&io::Error) -> UnpackError,
        parent: &OwnedFd,
        own: &[u8],
        names: &[Vec<u8>],
        attributes: Attributes,
    ) -> Result<(), UnpackError> {
        let (temporary, file) = loop {
            let temporary = self.temporary_name();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(parent, &temporary[..], flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => break (temporary, File::from(file)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.fault(names, reason(error))),
            }
        };
        let written = self
            .content(entry, wrong, &file, names)
            .and_then(|()| self.finish_file(&file, parent, &temporary, own, names, attributes));
        if written.is_err() {
            // The error is the cause; the name may be gone with its directory.
            let _ = unlinkat(parent, &temporary[..], AtFlags::empty());
        }
        written
    }

    fn content<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        wrong: &dyn Fn(&io::Error) -> UnpackError,
        mut file: &File,
        names: &[Vec<u8>],
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; CHUNK];
        let (mut size, mut hole) = (0_u64, false);
        loop {
            if self.watch.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            let count = match entry.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(&error)),
            };
            if count == 0 {
                break;
            }
            let chunk = &buffer[..count];
            size += count as u64;
            // Where all is zero the file gets a hole.
            hole = count == CHUNK && chunk.iter().all(|byte| *byte == 0);
            let written = if hole {
                file.seek(SeekFrom::Start(size)).map(drop)
            } else {
                self.tally.bytes += count as u64;
                file.write_all(chunk)
            };
            written.map_err(|error| self.fault(names, reason_of(&error)))?;
            self.watch.progress(self.tally);
        }
        let expected = entry.size();
        if size != expected && !entry.header().entry_type().is_gnu_sparse() {
            return Err(wrong(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        if hole {
            file.set_len(size)
                .map_err(|error| self.fault(names, reason_of(&error)))?;
        }
        Ok(())
    }

    fn finish_file(
        &mut self,
        file: &File,
        parent: &OwnedFd,
        temporary: &[u8],
        own: &[u8],
        names: &[Vec<u8>],
        attributes: Attributes,
    ) -> Result<(), UnpackError> {
        self.attributes(file, attributes)
            .and_then(|()| renameat(parent, temporary, parent, own))
            .map_err(|error| self.fault(names, reason(error)))?;
        if let Ok(stat) = fstat(file) {
            self.files.insert((stat.st_dev, stat.st_ino));
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        target: &[u8],
        parent: &OwnedFd,
        own: &[u8],
        names: &[Vec<u8>],
    ) -> Result<(), UnpackError> {
        let target = self.names(target)?;
        let (directory, name) = self.parent(&target)?;
        let stat = statat(&directory, &name[..], AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|error| self.fault(&target, reason(error)))?;
        if !self.files.contains(&(stat.st_dev, stat.st_ino)) {
            return Err(UnpackError::Malformed(
                "a hard link to a file that is not part of the copy".to_owned(),
            ));
        }
        self.replace(parent, own, names, |temporary| {
            linkat(&directory, &name[..], parent, temporary, AtFlags::empty())
        })
    }

    /// Makes a device or FIFO. False if it is left out.
    fn special(
        &mut self,
        kind: EntryType,
        device: u64,
        parent: &OwnedFd,
        own: &[u8],
        names: &[Vec<u8>],
        attributes: Attributes,
    ) -> Result<bool, UnpackError> {
        let what = if kind == EntryType::Fifo { "FIFO" } else { "device" };
        let path = self.path(names);
        if !self.keep.special {
            self.watch.note(format!("{path} is a {what} and is not copied"));
            return Ok(false);
        }
        let file_type = match kind {
            EntryType::Fifo => FileType::Fifo,
            EntryType::Char => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let mut refused = false;
        self.replace(parent, own, names, |temporary| {
            let made = mknodat(parent, temporary, file_type, mode, device);
            refused = made == Err(Errno::PERM);
            if refused { Ok(()) } else { made }
        })
        .or_else(|error| if refused { Ok(()) } else { Err(error) })?;
        if refused {
            self.watch.note(format!(
                "{path} is a {what} and is not copied: the container may not make it"
            ));
            return Ok(false);
        }
        self.attributes_of_link(parent, own, attributes);
        Ok(true)
    }

    /// Puts something without content in the place of what is there.
    fn replace(
        &mut self,
        parent: &OwnedFd,
        own: &[u8],
        names: &[Vec<u8>],
        mut make: impl FnMut(&[u8]) -> Result<(), Errno>,
    ) -> Result<(), UnpackError> {
        let temporary = loop {
            let temporary = self.temporary_name();
            match make(&temporary) {
                Ok(()) => break temporary,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.fault(names, reason(error))),
            }
        };
        let renamed = renameat(parent, &temporary[..], parent, own);
        // Also after a success: a rename between two names of one file does nothing.
        let _ = unlinkat(parent, &temporary[..], AtFlags::empty());
        renamed.map_err(|error| self.fault(names, reason(error)))
    }

    /// Gives the new directories their attributes, the deepest ones first.
    fn end(&mut self) -> Result<(), UnpackError> {
        let mut outcome = Ok(());
        for (names, attributes) in std::mem::take(&mut self.made).into_iter().rev() {
            let set = self.parent(&names).and_then(|(parent, own)| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(&parent, &own[..], flags, Mode::empty());
                directory
                    .and_then(|directory| self.attributes(directory, attributes))
                    .map_err(|error| self.fault(&names, reason(error)))
            });
            outcome = outcome.and(set);
        }
        outcome
    }

    /// A name that fits into every file system.
    fn temporary_name(&mut self) -> Vec<u8> {
        self.temporary += 1;
        let process = rustix::process::getpid().as_raw_pid();
        format!(".stopc-cp-{process}-{}", self.temporary).into_bytes()
    }

    fn fault(&self, names: &[Vec<u8>], error: impl Into<String>) -> UnpackError {
        UnpackError::Write {
            path: self.path(names),
            error: error.into(),
        }
    }

    fn path(&self, names: &[Vec<u8>]) -> String {
        let mut path = self.target.path.clone();
        for name in &names[usize::from(self.target.name.is_some()).min(names.len())..] {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        escape(&path)
    }
}
