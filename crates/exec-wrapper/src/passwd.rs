/*!
The home directory of a user in the kept filesystem.

A container runtime sets HOME from the container's `/etc/passwd` when the
environment has none (runc does; so a shell in a plain pod has one). It looks into
the wrapper image, which has no such file, and sets `/`. This mends it.
*/

use std::io::Read;

use rustix::fs::{FileType, Mode, OFlags};

/// Enough for some 20,000 users. More is not read: the file is the image's, and may be anything.
const MAX_SIZE: u64 = 1 << 20;

/// Home directory of `uid` by `/etc/passwd`, if that is a regular file that names it.
pub(crate) fn home_directory(uid: u32) -> Option<String> {
    // NONBLOCK: a FIFO must not stop the start.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    if kind != FileType::RegularFile {
        return None;
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(MAX_SIZE)
        .read_to_end(&mut content)
        .ok()?;
    home_in(&String::from_utf8_lossy(&content), uid).map(str::to_owned)
}

/// passwd(5): name, password, uid, gid, comment, home, shell.
fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid))
            .then(|| fields.nth(2))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::home_in;

    #[test]
    fn the_first_line_with_the_uid_wins() {
        let passwd = "# comment\nbroken\nroot:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nb:x:1000:1::/b:\n";
        assert_eq!(home_in(passwd, 0), Some("/root"));
        assert_eq!(home_in(passwd, 1000), Some("/home/app"));
        assert_eq!(home_in(passwd, 7), None);
    }
}
