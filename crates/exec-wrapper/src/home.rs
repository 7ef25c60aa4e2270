/*!
HOME, where neither template nor image sets it.

The runtime then takes it from the /etc/passwd of the root that it starts the
container in. For a consumer that is the wrapper image, which has none, so HOME is
`/`; this looks it up where the runtime would have.
*/

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{FileType, Mode, OFlags, fstat};

/// Largest /etc/passwd that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The value for HOME, if it is `/` now and the user has another one.
pub(crate) fn missing() -> Option<OsString> {
    if std::env::var_os("HOME").is_some_and(|home| home != "/" && !home.is_empty()) {
        return None;
    }
    let passwd = passwd()?;
    let home = of_user(&passwd, rustix::process::getuid().as_raw())?;
    (!home.is_empty()).then(|| OsString::from_vec(home.to_vec()))
}

/// The file, if it is an ordinary one of ordinary size. Anything else in its place is as good as none.
fn passwd() -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = fstat(&fd).ok()?;
    let size = u64::try_from(stat.st_size).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > MAX_BYTES {
        return None;
    }
    let mut content = Vec::new();
    File::from(fd).take(MAX_BYTES).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The home directory of the first entry with this uid.
fn of_user(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let this = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
        if this == uid { fields.nth(2) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_the_user_counts() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nx:x:notanumber:0::/n:\napp:x:1000:1000::/home/app:/bin/sh\nagain:x:1000:1::/other:\n";
        assert_eq!(of_user(passwd, 0), Some(&b"/root"[..]));
        assert_eq!(of_user(passwd, 1000), Some(&b"/home/app"[..]));
        assert_eq!(of_user(passwd, 7), None);
        assert_eq!(of_user(b"short:x:7", 7), None);
    }
}
