/*!
Writes a tree of files as a stream.

Links are copied as links. A directory of another file system is copied too, except for those in
which the kernel shows itself, such as /proc. Files may change meanwhile: a file that becomes
shorter while it is read ends the copy, because the archive has announced its length.
*/

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kept_files::frame;
use kept_files::path::escape;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, major, minor, openat, readlinkat, statat,
};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::{MAX_DEPTH, TOP, Tally, Watch, base_name, sparse};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Types of file systems in which the kernel shows itself: proc, sysfs, cgroup, cgroup2, devpts,
/// securityfs, debugfs, tracefs, bpf and mqueue (statfs(2)).
const OF_THE_KERNEL: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x7363_6673,
    0x6462_6720,
    0x7472_6163,
    0xcafe_4a11,
    0x1980_0202,
];

/// Why the files were not copied, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The path.
    #[error("cannot read {path}: {error}")]
    Open {
        /// The path that was to be copied.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The rest was copied.
    #[error("{count} of the files could not be read; the first is {first}")]
    Unreadable {
        /// How many.
        count: u64,
        /// A path with the reason.
        first: String,
    },
    /// The copy ended at this file.
    #[error("{0}; repeat the command")]
    Changed(String),
    /// The caller ended it.
    #[error("interrupted")]
    Stopped,
    /// The receiver does not take the stream.
    #[error("the other side ended the copy: {0}")]
    Write(io::Error),
}

/// What there is to copy.
#[derive(Debug)]
pub struct Source {
    /// The directory that it is in, or itself if it has no name.
    directory: OwnedFd,
    name: Option<OsString>,
    path: Vec<u8>,
}

/// A directory whose entries are being copied.
struct Level {
    directory: OwnedFd,
    names: Dir,
    /// Length of its name in the archive.
    length: usize,
}

struct Pack<'a, W: Write> {
    to: Builder<W>,
    watch: &'a mut dyn Watch,
    tally: Tally,
    /// Names in the archive of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The path of the source, for messages.
    source: Vec<u8>,
    unreadable: u64,
    first: String,
}

/// Passes on exactly the announced number of bytes.
struct Content<'a> {
    file: &'a File,
    left: u64,
    tally: &'a mut Tally,
    watch: &'a mut dyn Watch,
    fault: &'a mut Option<Fault>,
}

enum Fault {
    Short,
    Read(io::Error),
    Stopped,
}

// === impl Source ===

impl Source {
    /// Looks at a path. A link is not followed, unless the path ends with a slash.
    ///
    /// # Errors
    /// If nothing is there.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let bytes = path.as_os_str().as_bytes();
        let failed = |error: Errno| PackError::Open {
            path: escape(bytes),
            error: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (directory, name) = match base_name(bytes) {
            Some(name) if !bytes.ends_with(b"/") => {
                let above = &bytes[..bytes.len() - name.len()];
                let above = if above.is_empty() { b"." } else { above };
                // Only to look names up in it.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = openat(CWD, above, flags, Mode::empty()).map_err(failed)?;
                statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                (directory, Some(OsStr::from_bytes(name).to_owned()))
            }
            _ => (openat(CWD, bytes, flags, Mode::empty()).map_err(failed)?, None),
        };
        Ok(Self {
            directory,
            name,
            path: bytes.to_vec(),
        })
    }
}

/// Writes the files as a stream. If not all of them are complete, the stream says so as well.
///
/// # Errors
/// Why not everything was copied.
pub fn pack(source: Source, to: impl Write, watch: &mut dyn Watch) -> Result<Tally, PackError> {
    let mut frames = frame::Writer::new(to);
    let outcome = pack_into(source, &mut frames, watch);
    let ended = match &outcome {
        Ok(_) => frames.finish().map(drop),
        Err(PackError::Write(_)) => return outcome,
        Err(error) => frames.fail(&error.to_string()).map(drop),
    };
    match ended {
        Ok(()) => outcome,
        Err(error) => outcome.and(Err(PackError::Write(error))),
    }
}

fn pack_into(source: Source, to: &mut impl Write, watch: &mut dyn Watch) -> Result<Tally, PackError> {
    let mut pack = Pack {
        to: Builder::new(to),
        watch,
        tally: Tally::default(),
        links: HashMap::new(),
        source: source.path,
        unreadable: 0,
        first: String::new(),
    };
    let mut name = TOP.to_vec();
    let mut levels = Vec::new();
    match source.name {
        Some(own) => levels.extend(pack.file(&source.directory, own.as_bytes(), &name, 0)?),
        None => levels.extend(pack.directory(source.directory, &name, 0)?),
    }
    while let Some(level) = levels.last_mut() {
        if pack.watch.is_stopped() {
            return Err(PackError::Stopped);
        }
        name.truncate(level.length);
        match level.names.next() {
            None => {
                levels.pop();
            }
            Some(Err(error)) => {
                pack.unreadable(&name, &error.into());
                levels.pop();
            }
            Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Some(Ok(entry)) => {
                let own = entry.file_name().to_bytes();
                name.push(b'/');
                name.extend_from_slice(own);
                let depth = levels.len();
                if let Some(level) = levels.last() {
                    let below = pack.file(&level.directory, own, &name, depth)?;
                    levels.extend(below);
                }
            }
        }
    }
    let Pack {
        to,
        tally,
        unreadable,
        first,
        ..
    } = pack;
    to.into_inner().map_err(PackError::Write)?;
    match unreadable {
        0 => Ok(tally),
        count => Err(PackError::Unreadable { count, first }),
    }
}

// === impl Pack ===

impl<W: Write> Pack<'_, W> {
    /// Copies a file. Returns it if it is a directory.
    fn file(
        &mut self,
        parent: &OwnedFd,
        own: &[u8],
        name: &[u8],
        depth: usize,
    ) -> Result<Option<Level>, PackError> {
        let stat = match statat(parent, own, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed meanwhile: it does not belong to the files any more.
            Err(Errno::NOENT) if depth > 0 => return Ok(None),
            Err(error) => return Ok(self.unreadable(name, &error.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(parent, own, flags, Mode::empty()) {
                    Ok(directory) => self.directory(directory, name, depth),
                    Err(error) => Ok(self.unreadable(name, &error.into())),
                }
            }
            FileType::RegularFile => self.regular(parent, own, name).map(|()| None),
            FileType::Symlink => match readlinkat(parent, own, Vec::new()) {
                Ok(target) => {
                    let header = header(&stat, EntryType::Symlink);
                    self.link(header, name, target.as_bytes()).map(|()| None)
                }
                Err(error) => Ok(self.unreadable(name, &error.into())),
            },
            FileType::Fifo => self.special(&stat, EntryType::Fifo, name).map(|()| None),
            FileType::CharacterDevice => self.special(&stat, EntryType::Char, name).map(|()| None),
            FileType::BlockDevice => self.special(&stat, EntryType::Block, name).map(|()| None),
            _ => {
                let path = self.path(name);
                self.watch.note(format!("{path} is a socket and is not copied"));
                Ok(None)
            }
        }
    }

    fn directory(
        &mut self,
        directory: OwnedFd,
        name: &[u8],
        depth: usize,
    ) -> Result<Option<Level>, PackError> {
        let opened =
            fstat(&directory).and_then(|stat| Ok((stat, fstatfs(&directory)?, Dir::read_from(&directory)?)));
        let (stat, system, names) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(self.unreadable(name, &error.into())),
        };
        if depth >= MAX_DEPTH {
            let error = io::Error::other(format!("more than {MAX_DEPTH} directories below each other"));
            return Ok(self.unreadable(name, &error));
        }
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        if depth > 0 && OF_THE_KERNEL.contains(&((system.f_type as u64) & 0xffff_ffff)) {
            return Ok(None);
        }
        let mut header = header(&stat, EntryType::Directory);
        self.append(&mut header, name, io::empty())?;
        Ok(Some(Level {
            directory,
            names,
            length: name.len(),
        }))
    }

    fn regular(&mut self, parent: &OwnedFd, own: &[u8], name: &[u8]) -> Result<(), PackError> {
        // Something else may be there by now, and a FIFO must not stop the copy.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat(parent, own, flags, Mode::empty()).and_then(|file| Ok((fstat(&file)?, file)));
        let (stat, file) = match opened {
            Ok((stat, file)) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                (stat, file)
            }
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => {
                self.unreadable(name, &error.into());
                return Ok(());
            }
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.link(header(&stat, EntryType::Link), name, &first);
            }
            self.links.insert((stat.st_dev, stat.st_ino), name.to_vec());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(&stat, EntryType::Regular);
        let parts = sparse::parts(&file, size);
        let (blocks, parts) = if let Some(parts) = parts {
            (sparse::describe(&mut header, &parts, size), parts)
        } else {
            header.set_size(size);
            (Vec::new(), vec![(0, size)])
        };
        self.content(&mut header, name, &blocks, &File::from(file), &parts)
    }

    fn content(
        &mut self,
        header: &mut Header,
        name: &[u8],
        blocks: &[u8],
        file: &File,
        parts: &[sparse::Part],
    ) -> Result<(), PackError> {
        let mut fault = None;
        let appended = {
            let Self { to, watch, tally, .. } = self;
            let content = Parts {
                parts,
                content: Content {
                    file,
                    left: 0,
                    tally,
                    watch: &mut **watch,
                    fault: &mut fault,
                },
            };
            to.append_data(header, Path::new(OsStr::from_bytes(name)), blocks.chain(content))
        };
        match (appended, fault) {
            (Ok(()), _) => {
                self.count();
                Ok(())
            }
            (Err(_), Some(Fault::Stopped)) => Err(PackError::Stopped),
            (Err(_), Some(Fault::Short)) => Err(PackError::Changed(format!(
                "{} became shorter while it was read",
                self.path(name)
            ))),
            (Err(_), Some(Fault::Read(error))) => Err(PackError::Changed(format!(
                "cannot read {}: {error}",
                self.path(name)
            ))),
            (Err(error), None) => Err(PackError::Write(error)),
        }
    }

    fn link(&mut self, mut header: Header, name: &[u8], target: &[u8]) -> Result<(), PackError> {
        // The library would change `./a` and `a//b`.
        if header.set_link_name_literal(target).is_err() {
            let mut long = Header::new_gnu();
            long.set_entry_type(EntryType::GNULongLink);
            if let Some(gnu) = long.as_gnu_mut() {
                let name = b"././@LongLink";
                gnu.name[..name.len()].copy_from_slice(name);
            }
            long.set_size(target.len() as u64 + 1);
            long.set_cksum();
            self.to
                .append(&long, target.chain(&[0_u8][..]))
                .map_err(PackError::Write)?;
        }
        self.append(&mut header, name, io::empty())?;
        self.count();
        Ok(())
    }

    fn special(&mut self, stat: &Stat, kind: EntryType, name: &[u8]) -> Result<(), PackError> {
        let mut header = header(stat, kind);
        let set = header.set_device_major(major(stat.st_rdev));
        set.and_then(|()| header.set_device_minor(minor(stat.st_rdev)))
            .map_err(PackError::Write)?;
        self.append(&mut header, name, io::empty())?;
        self.count();
        Ok(())
    }

    fn append(&mut self, header: &mut Header, name: &[u8], data: impl Read) -> Result<(), PackError> {
        let path = Path::new(OsStr::from_bytes(name));
        self.to.append_data(header, path, data).map_err(PackError::Write)
    }

    fn count(&mut self) {
        self.tally.files += 1;
        self.watch.progress(self.tally);
    }

    /// Goes on without a file.
    fn unreadable(&mut self, name: &[u8], error: &io::Error) -> Option<Level> {
        if self.unreadable == 0 {
            self.first = format!("{} ({error})", self.path(name));
        }
        self.unreadable += 1;
        None
    }

    fn path(&self, name: &[u8]) -> String {
        escape(&[&self.source[..], &name[TOP.len()..]].concat())
    }
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

/// The parts of a file, one after the other.
struct Parts<'a> {
    parts: &'a [sparse::Part],
    content: Content<'a>,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.content.left == 0 {
            let Some(((start, length), later)) = self.parts.split_first() else {
                return Ok(0);
            };
            self.parts = later;
            self.content.left = *length;
            self.content.file.seek(SeekFrom::Start(*start))?;
        }
        self.content.read(buffer)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_stopped() {
            *self.fault = Some(Fault::Stopped);
            return Err(io::Error::other("stopped"));
        }
        let most = usize::try_from(self.left).unwrap_or(CHUNK).min(buffer.len());
        match self.file.read(&mut buffer[..most]) {
            Ok(0) if most > 0 => {
                *self.fault = Some(Fault::Short);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count as u64;
                self.tally.bytes += count as u64;
                self.watch.progress(*self.tally);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                *self.fault = Some(Fault::Read(error));
                Err(io::Error::other("not readable"))
            }
        }
    }
}
