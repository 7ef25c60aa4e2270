/*!
HOME, where neither template nor image sets it.

The runtime then takes it from the /etc/passwd of the root that it starts the container in. For a
consumer that is the wrapper image, which has none, so HOME is `/`; this looks it up where the
runtime would have.
*/

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{FileType, Mode, OFlags, fstat};

/// Largest /etc/passwd that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Longest line that is understood, in bytes, its end included: what runc understands. Longer ones
/// are skipped.
const MAX_LINE: u64 = 64 << 10;

/// The value for HOME, if it is `/` now and the user has another one.
pub(crate) fn missing() -> Option<OsString> {
    if std::env::var_os("HOME").is_some_and(|home| home != "/" && !home.is_empty()) {
        return None;
    }
    let home = of_user(passwd()?, rustix::process::getuid().as_raw())?;
    (!home.is_empty()).then(|| OsString::from_vec(home))
}

/// The file, if it is an ordinary one of ordinary size. Anything else in its place is as good as
/// none.
fn passwd() -> Option<impl BufRead> {
    // A look before the open, as opening a device may have effects, and one after it, as another
    // file may be there by then.
    let looked = rustix::fs::stat("/etc/passwd").ok()?;
    if FileType::from_raw_mode(looked.st_mode) != FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = fstat(&fd).ok()?;
    let size = u64::try_from(stat.st_size).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > MAX_BYTES {
        return None;
    }
    Some(BufReader::new(File::from(fd).take(MAX_BYTES)))
}

/// The home directory of the first entry with this uid.
fn of_user(mut passwd: impl BufRead, uid: u32) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if Read::take(&mut passwd, MAX_LINE)
            .read_until(b'\n', &mut line)
            .ok()?
            == 0
        {
            return None;
        }
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == MAX_LINE {
            passwd.skip_until(b'\n').ok()?;
        } else if let Some(home) = of_entry(&line, uid) {
            return Some(home.to_vec());
        }
    }
}

/// The home directory in a line, if it is of this uid.
fn of_entry(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b':');
    let this = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
    if this == uid { fields.nth(2) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_the_user_counts() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nx:x:notanumber:0::/n:\napp:x:1000:1000::/home/app:/bin/sh\nagain:x:1000:1::/other:\n";
        let home = |passwd: &[u8], uid| of_user(passwd, uid).map(|home| String::from_utf8(home).unwrap());
        assert_eq!(home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home(passwd, 1000).as_deref(), Some("/home/app"));
        assert_eq!(home(passwd, 7), None);
        assert_eq!(home(b"short:x:7", 7), None);
        assert_eq!(home(b"x:x:7:7::/without/end", 7).as_deref(), Some("/without/end"));
    }

    /// In a buffer of one line, whatever the file is.
    #[test]
    fn h12_lines_without_end_are_skipped() {
        let max = usize::try_from(MAX_LINE).unwrap();
        for length in [max - 1, max, max + 1, 3 * max, 3 * max + 1] {
            let long = "x".repeat(length);
            let passwd = format!("{long}\nx:x:7:7::/home/x:\n");
            assert_eq!(
                of_user(passwd.as_bytes(), 7),
                Some(b"/home/x".to_vec()),
                "{length}"
            );
            // What is behind the end of the buffer is not an entry.
            let passwd = format!("{long}x:x:7:7::/home/x:\n");
            assert_eq!(
                of_user(passwd.as_bytes(), 7).is_some(),
                passwd.len() <= max,
                "{length}"
            );
        }
        let endless = BufReader::new(std::io::repeat(b'x').take(MAX_BYTES));
        assert_eq!(of_user(endless, 7), None);
    }
}
