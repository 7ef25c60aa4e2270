/*!
Whether this process runs on the kept filesystem.

Asked of the kernel (the mount table), so it holds without the node agent and whatever the image
contains: also where that, or a mount of the pod, has a tree of its own at /proc.
*/

use std::fs::File;
use std::io::{BufRead, BufReader};

use exec_wrapper::protocol::KEPT_ROOT_SOURCE;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs};

/// Longest line of a mount table that is looked at, in bytes. The kernel's are at most a page and a
/// few fields.
const MAX_LINE: u64 = 64 << 10;

/// Whether the root of this process is a kept filesystem. A table that the kernel did not write
/// says nothing.
pub(crate) fn is_here() -> std::io::Result<bool> {
    // What stands there instead may be anything, a FIFO too.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let table = rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty())?;
    if fstatfs(&table)?.f_type != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    is_kept(&mut BufReader::new(File::from(table)))
}

fn is_kept(table: &mut impl BufRead) -> std::io::Result<bool> {
    let mut kept = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut *table, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(kept);
        }
        // Of several mounts at `/` the last one counts.
        if let Some(this) = root_source(&line) {
            kept = this == KEPT_ROOT_SOURCE.as_bytes();
        }
    }
}

/// The source of a mount, if it is an overlay or anything else at `/`.
fn root_source(line: &[u8]) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b' ');
    if fields.nth(4)? != b"/" {
        return None;
    }
    fields.find(|field| *field == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next()?;
    Some(if fs_type == b"overlay" { source } else { b"" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(table: &str) -> bool {
        is_kept(&mut table.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_mount_at_the_root_counts() {
        let image = "10 5 0:1 / / rw - overlay overlay rw,upperdir=/x\n";
        let ours = "30 4 0:2 / / rw shared:1 - overlay stoppablecontainer rw\n";
        let other = "31 30 0:3 / /proc rw - overlay stoppablecontainer rw\n";
        assert!(!kept(""));
        assert!(!kept(image));
        assert!(kept(ours));
        assert!(kept(&format!("{image}{ours}")));
        assert!(!kept(&format!("{ours}{image}")));
        assert!(!kept(&format!("{image}{other}")));
        assert!(!kept("30 4 0:2 / / rw - tmpfs stoppablecontainer rw\n"));
    }
}
