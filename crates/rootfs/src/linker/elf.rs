/*!
What the loader's cache needs of a shared object: for which machine it is, and its name.

The file may be of an image. All offsets are checked, and only a few kilobytes are read.
*/

use std::os::fd::AsFd;

use rustix::io::{Errno, pread};

/// Most program headers. The loader's own limit is 65535, linkers make about a dozen.
const MAX_HEADERS: usize = 128;
/// Most bytes of the dynamic section.
const MAX_DYNAMIC: usize = 64 << 10;
/// Longest name, which has to be that of a file.
const MAX_NAME: usize = 255;

/// A shared object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedObject {
    /// The flags of its entry in the cache.
    pub(super) flags: u32,
    /// Its `DT_SONAME`.
    pub(super) name: Option<Vec<u8>>,
}

/// Positions of fields, which differ between 32 and 64 bits (elf(5)).
struct Class {
    header: usize,
    header_offset: usize,
    header_count: usize,
    program_header: usize,
    wide: bool,
}

const CLASS_32: Class = Class {
    header: 52,
    header_offset: 28,
    header_count: 42,
    program_header: 32,
    wide: false,
};
const CLASS_64: Class = Class {
    header: 64,
    header_offset: 32,
    header_count: 54,
    program_header: 56,
    wide: true,
};

/// A piece of the file that is loaded.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

// === impl SharedObject ===

impl SharedObject {
    /// Reads a regular file. `None` unless it is a shared object for the
    /// machine type of a node.
    pub(super) fn read(file: impl AsFd) -> Result<Option<Self>, Errno> {
        let file = file.as_fd();
        let read = |offset: u64, length: usize| -> Result<Vec<u8>, Errno> {
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while filled < length {
                match pread(file, &mut bytes[filled..], offset.saturating_add(filled as u64)) {
                    // The end, or an offset that no file has.
                    Ok(0) | Err(Errno::INVAL | Errno::OVERFLOW) => break,
                    Ok(count) => filled += count,
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e),
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        };
        let header = read(0, 64)?;
        let Some((class, flags)) = classify(&header) else {
            return Ok(None);
        };
        let (Some(offset), Some(count)) = (
            class.word(&header, class.header_offset),
            half(&header, class.header_count),
        ) else {
            return Ok(None);
        };
        if header.len() < class.header || usize::from(count) > MAX_HEADERS {
            return Ok(None);
        }
        let table = read(offset, usize::from(count) * class.program_header)?;
        let segments: Vec<_> = table
            .chunks_exact(class.program_header)
            .filter_map(|header| class.segment(header))
            .collect();
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
            return Ok(None);
        };
        let size = usize::try_from(dynamic.size).map_or(MAX_DYNAMIC, |size| size.min(MAX_DYNAMIC));
        let section = read(dynamic.offset, size)?;
        let entries = section
            .chunks_exact(if class.wide { 16 } else { 8 })
            .map_while(|entry| {
                let tag = class.word(entry, 0)?;
                let value = class.word(entry, entry.len() / 2)?;
                (tag != DT_NULL).then_some((tag, value))
            });
        let (mut strings, mut name) = (None, None);
        for (tag, value) in entries {
            match tag {
                DT_STRTAB => strings = Some(value),
                DT_SONAME => name = Some(value),
                _ => {}
            }
        }
        let place = strings.zip(name).and_then(|(strings, name)| {
            let loaded = segments.iter().find(|segment| {
                segment.kind == PT_LOAD
                    && strings
                        .checked_sub(segment.address)
                        .is_some_and(|at| at < segment.size)
            })?;
            (strings - loaded.address)
                .checked_add(loaded.offset)?
                .checked_add(name)
        });
        let name = match place {
            None => None,
            Some(place) => {
                let bytes = read(place, MAX_NAME + 1)?;
                let end = bytes.iter().position(|byte| *byte == 0);
                end.map(|end| bytes[..end].to_vec())
                    .filter(|name| is_file_name(name))
            }
        };
        Ok(Some(Self { flags, name }))
    }
}

// === impl Class ===

impl Class {
    /// An address, offset or size.
    fn word(&self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.wide {
            Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
        } else {
            int(bytes, at).map(u64::from)
        }
    }

    fn segment(&self, header: &[u8]) -> Option<Segment> {
        let [offset, address, size] = if self.wide { [8, 16, 32] } else { [4, 8, 16] };
        Some(Segment {
            kind: int(header, 0)?,
            offset: self.word(header, offset)?,
            address: self.word(header, address)?,
            size: self.word(header, size)?,
        })
    }
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// The class of a shared object, and its flags in the cache (glibc, sysdeps/generic/ldconfig.h:
/// `FLAG_ELF_LIBC6`, `FLAG_X8664_LIB64`, `FLAG_AARCH64_LIB64`).
fn classify(header: &[u8]) -> Option<(&'static Class, u32)> {
    const SHARED_OBJECT: u16 = 3;
    const LITTLE_ENDIAN: u8 = 1;
    if header.get(..4)? != b"\x7fELF"
        || *header.get(5)? != LITTLE_ENDIAN
        || half(header, 16)? != SHARED_OBJECT
    {
        return None;
    }
    match (*header.get(4)?, half(header, 18)?) {
        // x86-64
        (2, 62) => Some((&CLASS_64, 0x0303)),
        // i386
        (1, 3) => Some((&CLASS_32, 0x0003)),
        // AArch64
        (2, 183) => Some((&CLASS_64, 0x0a03)),
        _ => None,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Whether a name can be that of a file in the same directory.
fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/')
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::path::Path;

    use super::SharedObject;

    /// The C library of the machine that runs the tests.
    fn libc() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .lines()
            .find_map(|line| {
                line.split_whitespace()
                    .nth(5)
                    .filter(|path| path.contains("libc.so"))
            })
            .unwrap();
        std::fs::read(Path::new(path)).unwrap()
    }

    fn read(content: &[u8]) -> Option<SharedObject> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        SharedObject::read(file).unwrap()
    }

    #[test]
    fn a_library_has_its_name() {
        let found = read(&libc()).unwrap();
        assert_eq!(found.name.as_deref(), Some(&b"libc.so.6"[..]));
    }

    #[test]
    fn h12_files_that_are_cut_off_or_changed_are_read_within_bounds() {
        let whole = libc();
        for length in [0, 4, 16, 63, 64, 100, 500, 4096, 100_000] {
            let _ = read(&whole[..length]);
        }
        assert_eq!(read(b"#!/bin/sh"), None);
        // Each byte of the header and of the first program headers in turn has its largest value.
        for at in 0..400 {
            let mut changed = whole[..8192].to_vec();
            changed[at] = 0xff;
            let _ = read(&changed);
        }
    }
}
