//! Why a file was not written, in words.

use std::io;

use rustix::io::Errno;

pub(super) fn in_the_way(error: Errno) -> String {
    match error {
        Errno::LOOP | Errno::NOTDIR => {
            "something else than a directory is there, and links are not followed".to_owned()
        }
        error => reason(error),
    }
}

pub(super) fn reason(error: Errno) -> String {
    match error {
        Errno::NOSPC => "no space is left on its disk or volume".to_owned(),
        Errno::DQUOT => "the quota of its disk or volume is used up".to_owned(),
        Errno::BUSY => "it is a mount point".to_owned(),
        Errno::ISDIR => "a directory is there".to_owned(),
        error => io::Error::from(error).to_string(),
    }
}

pub(super) fn reason_of(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| error.to_string(), reason)
}
