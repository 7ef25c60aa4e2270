/*!
Reads mount tables (`/proc/PID/mountinfo`, see proc_pid_mountinfo(5)).

A container decides the content of its own table: names with blanks, line feeds and backslashes, and
very many mounts. So fields are bytes, and reading is bounded. A malformed line is an error and not
skipped, because a mount that is overlooked would not be moved.
*/

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Largest table that is taken apart, in bytes: of one container, at its start. Some may start at
/// once, and the agent that does it has a limit on its memory; ordinary containers have some KiB.
const MAX_BYTES: u64 = 16 << 20;

/// A mount table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    mounts: Vec<Mount>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique among the mounts that exist now.
    pub id: u64,
    /// Id of the mount that this one is mounted on; its own where there is none.
    pub parent: u64,
    /// Major and minor number of the file system, as statx(2) tells them of its files; the same for
    /// all of its mounts.
    pub device: (u32, u32),
    /// Which part of the file system is mounted.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the root of the process that was asked.
    pub mountpoint: PathBuf,
    /// What this mount (as opposed to the file system) forbids.
    pub flags: Flags,
    /// What it shares with others.
    pub propagation: Propagation,
    /// File system type.
    pub fs_type: OsString,
    /// What the mounter named as source.
    pub source: OsString,
    /// Options of the file system, still separated by commas and escaped: see
    /// [`Mount::super_option`].
    pub super_options: Vec<u8>,
}

/// What a mount forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// No writing.
    pub read_only: bool,
    /// Setuid bits and file capabilities mean nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
}

/// What a mount shares with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// Peer group, if mounts below it propagate to others.
    pub shared: Option<u64>,
    /// Peer group that it receives from.
    pub master: Option<u64>,
    /// Whether it refuses to be cloned.
    pub unbindable: bool,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file could not be read.
    #[error("cannot read the mount table")]
    Read(#[source] std::io::Error),
    /// It is larger than any table that this library works on.
    #[error("the mount table is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// One mount fills more than any mount that this library works on.
    #[error("a line of the mount table is longer than {MAX_LINE} bytes")]
    LongLine,
    /// A line is not as proc_pid_mountinfo(5) describes.
    #[error("line {0} of the mount table is not valid")]
    Line(usize),
}

// === impl Table ===

impl Table {
    /// Reads an open `mountinfo`.
    pub fn read(mountinfo: OwnedFd) -> Result<Self, TableError> {
        Self::parse(&read_bounded(mountinfo)?)
    }

    /// Reads a table from memory.
    pub fn parse(text: &[u8]) -> Result<Self, TableError> {
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mounts = lines
            .enumerate()
            .map(|(at, line)| Mount::parse(line).ok_or(TableError::Line(at + 1)))
            .collect::<Result<_, _>>()?;
        Ok(Self { mounts })
    }

    /// All mounts in the order of the table.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The mount that the process's paths begin at: the topmost of those at `/`.
    pub fn root(&self) -> Option<&Mount> {
        let at_root: Vec<_> = self
            .mounts
            .iter()
            .filter(|m| m.mountpoint.as_os_str() == "/")
            .collect();
        let covered = |m: &Mount| at_root.iter().any(|over| over.parent == m.id && over.id != m.id);
        at_root.iter().copied().rev().find(|m| !covered(m))
    }

    /// Mounts that are mounted on the mount with this id, in the order of the table.
    pub fn children(&self, id: u64) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |m| m.parent == id && m.id != id)
    }
}

// === impl Mount ===

impl Mount {
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let (major, minor) = fields.next()?.split_once_byte(b':')?;
        let device = (number(major)?.try_into().ok()?, number(minor)?.try_into().ok()?);
        let root = path(fields.next()?);
        let mountpoint = path(fields.next()?);
        let flags = Flags::parse(fields.next()?);
        let mut propagation = Propagation::default();
        loop {
            match fields.next()? {
                b"-" => break,
                b"unbindable" => propagation.unbindable = true,
                field => match field.split_once_byte(b':') {
                    Some((b"shared", group)) => propagation.shared = Some(number(group)?),
                    Some((b"master", group)) => propagation.master = Some(number(group)?),
                    // Kernels may add fields here; the format says to ignore those.
                    _ => {}
                },
            }
        }
        let fs_type = OsString::from_vec(unescape(fields.next()?));
        let source = OsString::from_vec(unescape(fields.next()?));
        // A source may be empty, and some file systems print blanks in their options.
        let super_options = fields.collect::<Vec<_>>().join(&b' ');
        Some(Self {
            id,
            parent,
            device,
            root,
            mountpoint,
            flags,
            propagation,
            fs_type,
            source,
            super_options,
        })
    }

    /// Values of a file system option, unescaped, in order: an overlay may have many `lowerdir+`.
    pub fn super_option<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
        self.super_options
            .split(|b| *b == b',')
            .filter_map(move |option| {
                let value = option.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(unescape(value))
            })
    }

    /// The SELinux context that all of its files have (mount(8), `context=`), where it was mounted
    /// with one: that is how runtimes label a container's root. With commas it stands between
    /// quotation marks.
    pub fn context(&self) -> Option<String> {
        let options = std::str::from_utf8(&self.super_options).ok()?;
        let at = options.match_indices("context=").map(|(at, _)| at);
        let own = |at: &usize| *at == 0 || options[..*at].ends_with(',');
        let value = &options[at.filter(own).min()? + "context=".len()..];
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => value.split(',').next(),
        };
        value.map(str::to_owned)
    }

    /// Whether this is the root of any kept filesystem.
    pub fn is_kept_root(&self) -> bool {
        self.fs_type == "overlay" && self.source == crate::SOURCE
    }
}

// === impl Flags ===

impl Flags {
    fn parse(options: &[u8]) -> Self {
        let mut flags = Self::default();
        for option in options.split(|b| *b == b',') {
            match option {
                b"ro" => flags.read_only = true,
                b"nosuid" => flags.no_suid = true,
                b"nodev" => flags.no_dev = true,
                b"noexec" => flags.no_exec = true,
                _ => {}
            }
        }
        flags
    }
}

/// Reads a whole mountinfo, within bounds.
pub(crate) fn read_bounded(mountinfo: OwnedFd) -> Result<Vec<u8>, TableError> {
    let mut text = Vec::new();
    File::from(mountinfo)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(TableError::Read)?;
    if text.len() as u64 > MAX_BYTES {
        Err(TableError::TooLarge)
    } else {
        Ok(text)
    }
}

/// Longest line of a table that is read one by one, in bytes. An overlay may have 500 layers; the
/// path of each has up to 4096 bytes, and up to four times that when it is escaped.
const MAX_LINE: u64 = 16 << 20;

/// The lines of an open mountinfo, without line feeds: no more than one is in memory. Nothing
/// follows an error.
pub(crate) fn lines(mountinfo: OwnedFd) -> impl Iterator<Item = Result<Vec<u8>, TableError>> {
    let mut reader = Some(BufReader::new(File::from(mountinfo)));
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = reader
            .as_mut()?
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut line)
            .map_err(TableError::Read);
        if let Ok(1..) = read
            && line.pop_if(|byte| *byte == b'\n').is_some()
        {
            return Some(Ok(line));
        }
        reader = None;
        match read {
            Ok(_) if line.len() as u64 > MAX_LINE => Some(Err(TableError::LongLine)),
            Ok(_) => (!line.is_empty()).then_some(Ok(line)),
            Err(error) => Some(Err(error)),
        }
    })
}

/// The mounts of an open mountinfo, like [`lines`].
pub(crate) fn mounts(mountinfo: OwnedFd) -> impl Iterator<Item = Result<Mount, TableError>> {
    lines(mountinfo)
        .enumerate()
        .map(|(at, line)| Mount::parse(&line?).ok_or(TableError::Line(at + 1)))
}

trait SplitOnceByte {
    fn split_once_byte(&self, separator: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnceByte for [u8] {
    fn split_once_byte(&self, separator: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|b| *b == separator)?;
        Some((&self[..at], &self[at + 1..]))
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's escapes: a backslash and three octal digits stand for one byte.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (*first, tail) {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// Whether the bytes are those of a path that ends in these components.
pub(crate) fn ends_with(path: &[u8], suffix: &str) -> bool {
    std::path::Path::new(std::ffi::OsStr::from_bytes(path)).ends_with(suffix)
}

#[cfg(test)]
mod tests;
