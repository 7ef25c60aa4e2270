/*!
The log of a disk's writes, and which of them a power cut leaves.

QEMU's driver `blklogwrites` writes it, in the format of Linux's dm-log-writes: a superblock, then
for each request an entry and its data. A disk with a cache keeps for certain what it wrote before
its last flush, and requests that say that they are to bypass the cache. Everything else is taken
for lost.
*/

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// "jsfwshr": how a log begins.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Sectors in entries have this size, whatever the log's own are.
const SECTOR: u64 = 512;

/// Flags of an entry.
const FLUSH: u64 = 1;
const BYPASS: u64 = 2;
const DISCARD: u64 = 4;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Where it writes, in bytes.
    place: u64,
    /// How much, in bytes.
    length: u64,
    flags: u64,
    /// Where its data is in the log, in bytes.
    data: u64,
}

/// How many requests a power cut kept, and how many it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    pub kept: usize,
    pub lost: usize,
}

/// Writes what a power cut leaves to the disk's image.
pub(super) fn replay(log: &Path, image: &Path) -> Result<Replayed> {
    let file = File::open(log).with_context(|| format!("opening {}", log.display()))?;
    let entries = read(&file).with_context(|| format!("reading {}", log.display()))?;
    let disk = fs::OpenOptions::new().write(true).open(image);
    let disk = disk.with_context(|| format!("opening {}", image.display()))?;
    let kept = kept(&entries);
    let mut buffer = Vec::new();
    for entry in kept.iter().filter(|entry| entry.length > 0) {
        buffer.clear();
        buffer.resize(usize::try_from(entry.length)?, 0);
        if entry.flags & DISCARD == 0 {
            file.read_exact_at(&mut buffer, entry.data)
                .with_context(|| format!("reading {}", log.display()))?;
        }
        disk.write_all_at(&buffer, entry.place)
            .with_context(|| format!("writing {}", image.display()))?;
    }
    Ok(Replayed {
        kept: kept.len(),
        lost: entries.len() - kept.len(),
    })
}

/// The entries that a power cut leaves, in their order.
fn kept(entries: &[Entry]) -> Vec<Entry> {
    let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
    let flushed = flushed.map_or(0, |last| last + 1);
    let later = entries[flushed..]
        .iter()
        .filter(|entry| entry.flags & BYPASS != 0);
    entries[..flushed].iter().chain(later).copied().collect()
}

fn read(log: &File) -> Result<Vec<Entry>> {
    let mut header = [0; 28];
    log.read_exact_at(&mut header, 0)?;
    let [magic, version, count] = [0, 8, 16].map(|at| number(&header, at));
    ensure!(magic == MAGIC && version == VERSION, "it is not a log of writes");
    let own = u64::from(u32::from_le_bytes(header[24..].try_into()?));
    ensure!(own >= SECTOR, "its sectors have {own} bytes");
    let mut at = own;
    let mut entries = Vec::new();
    for _ in 0..count {
        let mut bytes = [0; 32];
        log.read_exact_at(&mut bytes, at)?;
        let [sector, sectors, flags] = [0, 8, 16].map(|at| number(&bytes, at));
        let entry = Entry {
            place: sector * SECTOR,
            length: sectors * SECTOR,
            flags,
            data: at + own,
        };
        at = entry.data;
        if flags & DISCARD == 0 {
            at += entry.length.next_multiple_of(own);
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with requests at these sectors, of one sector each that is filled with the byte.
    fn log(requests: &[(u64, u64, u8)]) -> Vec<u8> {
        let sector = |numbers: &[u64]| {
            let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            bytes.resize(512, 0);
            bytes
        };
        let mut log = sector(&[MAGIC, VERSION, requests.len() as u64, 512]);
        for (place, flags, byte) in requests {
            let has_data = *byte != 0;
            log.extend(sector(&[*place, u64::from(has_data), *flags, 0]));
            if has_data && flags & DISCARD == 0 {
                log.extend([*byte; 512]);
            }
        }
        log
    }

    fn disk_after(requests: &[(u64, u64, u8)]) -> (Vec<u8>, Replayed) {
        let dir = std::env::temp_dir().join(format!("write-log-{}", std::process::id()));
        let _ = fs::create_dir_all(&dir);
        let name = format!("{requests:?}");
        let (written, image) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.img")));
        fs::write(&written, log(requests)).unwrap();
        fs::write(&image, [9; 4 * 512]).unwrap();
        let replayed = replay(&written, &image).unwrap();
        let disk = fs::read(&image).unwrap();
        fs::remove_file(&written)
            .and_then(|()| fs::remove_file(&image))
            .unwrap();
        (disk.chunks(512).map(|sector| sector[0]).collect(), replayed)
    }

    #[test]
    fn what_was_written_after_the_last_flush_is_lost() {
        let (disk, replayed) = disk_after(&[(0, 0, 1), (1, 0, 2), (0, FLUSH, 0), (1, 0, 3), (2, 0, 4)]);
        assert_eq!(disk, [1, 2, 9, 9]);
        assert_eq!(replayed, Replayed { kept: 3, lost: 2 });
        assert_eq!(disk_after(&[(0, 0, 1)]).0, [9, 9, 9, 9]);
    }

    #[test]
    fn what_bypasses_the_cache_is_kept() {
        let (disk, _) = disk_after(&[(0, FLUSH, 0), (1, 0, 3), (2, BYPASS, 4)]);
        assert_eq!(disk, [9, 9, 4, 9]);
    }

    #[test]
    fn discarded_sectors_are_empty_and_have_no_data_in_the_log() {
        let (disk, _) = disk_after(&[(1, DISCARD, 1), (2, 0, 5), (0, FLUSH, 0)]);
        assert_eq!(disk, [9, 0, 5, 9]);
    }
}
