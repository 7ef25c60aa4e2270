/*!
Standard input after the root changed.

Without an input of its own a container has /dev/null, which the runtime opened in the root of
before; it would stay the only thing that the command has of that root, and has no path in the new
one.
*/

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, fstat, openat};
use rustix::stdio::{dup2_stdin, stdin};

/// Takes /dev/null of the present root for standard input, if it is that of another one. A failure
/// is not a reason to stop: it is a /dev/null either way.
pub(crate) fn renew() {
    let null = rustix::fs::makedev(1, 3);
    if device(stdin()) != Some(null) {
        return;
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(other) = openat(CWD, "/dev/null", flags, Mode::empty())
        && device(&other) == Some(null)
    {
        let _ = dup2_stdin(other);
    }
}

/// Which device it is, if it is a character device.
fn device(fd: impl std::os::fd::AsFd) -> Option<Dev> {
    let stat = fstat(fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice).then_some(stat.st_rdev)
}
