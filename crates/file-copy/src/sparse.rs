//! Parts of a file that have data, in the format of GNU tar for sparse files.

use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use tar::{EntryType, GnuExtSparseHeader, Header};

/// Holes that are smaller altogether are copied as zeros.
const WORTHWHILE: u64 = 64 << 10;
/// A file with more parts is copied with its holes as zeros.
const MAX_PARTS: usize = 4096;
/// What the parts are aligned to in the archive.
const BLOCK: u64 = 512;

/// Offset and length.
pub(crate) type Part = (u64, u64);

/// The parts of a file with data, if it has holes that are worth it.
pub(crate) fn parts(file: impl AsFd, size: u64) -> Option<Vec<Part>> {
    let (mut parts, mut at, mut data) = (Vec::new(), 0, 0);
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data up to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = seek(&file, SeekFrom::Hole(start)).ok()?.min(size);
        if start >= size {
            break;
        }
        // It changes while it is looked at, or its blocks are unusual.
        if end <= start || (end < size && !(end - start).is_multiple_of(BLOCK)) || parts.len() == MAX_PARTS {
            return None;
        }
        data += end - start;
        parts.push((start, end - start));
        at = end;
    }
    if size - data < WORTHWHILE {
        return None;
    }
    // The last part says where the file ends.
    if parts.last().is_none_or(|(start, length)| start + length < size) {
        parts.push((size, 0));
    }
    Some(parts)
}

/// Describes the parts: the first ones in the header, and the others in the blocks that are
/// returned, which come before the data.
pub(crate) fn describe(header: &mut Header, parts: &[Part], size: u64) -> Vec<u8> {
    let data: u64 = parts.iter().map(|(_, length)| length).sum();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(data);
    let Some(gnu) = header.as_gnu_mut() else {
        return Vec::new();
    };
    gnu.set_real_size(size);
    let (first, rest) = parts.split_at(parts.len().min(gnu.sparse.len()));
    for (entry, (offset, length)) in gnu.sparse.iter_mut().zip(first) {
        entry.set_offset(*offset);
        entry.set_length(*length);
    }
    gnu.set_is_extended(!rest.is_empty());
    let mut blocks = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let mut block = GnuExtSparseHeader::new();
        let (now, later) = rest.split_at(rest.len().min(block.sparse().len()));
        for (entry, (offset, length)) in block.sparse_mut().iter_mut().zip(now) {
            entry.set_offset(*offset);
            entry.set_length(*length);
        }
        block.set_is_extended(!later.is_empty());
        blocks.extend_from_slice(block.as_bytes());
        rest = later;
    }
    blocks
}
