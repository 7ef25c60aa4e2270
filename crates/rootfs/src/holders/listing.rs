/*!
Looks for one overlay in a mount namespace by asking for nothing but overlays.

A line of a mount table is in the kernel's memory as a whole before any of it can be
read, and it has the path of the mountpoint in it, which can be deeper than any limit
on names: whoever may mount can make one of hundreds of megabytes, which counts as
memory of whoever reads it. `statmount(2)` tells the options of a mount without where
it is. For other namespaces it does since Linux 6.11; before, there are only the
tables ([`super::search`]).
*/

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::search::{Found, names_upper};
use crate::sys;

/// How many mounts are listed at once.
const LIST: usize = 512;
/// How often, so that somebody who mounts meanwhile does not keep us. The kernel's limit is 100,000 mounts a namespace.
const LISTS: usize = 2048;
/// Largest answer about one mount, in bytes. An overlay has at most 500 layers, each with a path of 4 KiB, in which a byte
/// may take four.
const MAX_ANSWER: usize = 16 << 20;

// linux/mount.h, of `struct statmount`: bits of the mask, and where fields are.
const SB_BASIC: u64 = 0x1;
const MNT_OPTS: u64 = 0x80;
const OPTIONS_AT: usize = 4;
const MASK_AT: usize = 8;
const MAGIC_AT: usize = 24;
const STRINGS_AT: usize = 512;
/// linux/magic.h
const OVERLAYFS: u64 = 0x794c_7630;

/// Whether an overlay with such an upper directory is in a mount namespace. `None` if this kernel does not say.
pub(super) fn find(namespace: impl AsFd, upper: &str) -> Option<Found> {
    let namespace = sys::mount_namespace_id(namespace).ok()?;
    let mut answer = vec![0_u64; 512];
    let mut ids = [0; LIST];
    let mut last = 0;
    for _ in 0..LISTS {
        let count = sys::list_mounts(namespace, last, &mut ids).ok()?;
        let listed = ids.get(..count)?;
        for id in listed {
            if is_of(namespace, *id, upper, &mut answer)? {
                return Some(Found::Yes);
            }
        }
        last = match listed.last() {
            Some(id) => *id,
            None => return Some(Found::No),
        };
    }
    Some(Found::Unknown)
}

fn is_of(namespace: u64, mount: u64, upper: &str, answer: &mut Vec<u64>) -> Option<bool> {
    match sys::stat_mount(namespace, mount, SB_BASIC, answer) {
        Ok(()) => {}
        // It was unmounted meanwhile.
        Err(Errno::NOENT) => return Some(false),
        Err(_) => return None,
    }
    if number(answer, MAGIC_AT)? != OVERLAYFS {
        return Some(false);
    }
    loop {
        match sys::stat_mount(namespace, mount, MNT_OPTS, answer) {
            Ok(()) => break,
            Err(Errno::NOENT) => return Some(false),
            Err(Errno::OVERFLOW) if size_of_val(&answer[..]) < MAX_ANSWER => {
                answer.resize(answer.len() * 2, 0);
            }
            Err(_) => return None,
        }
    }
    if number(answer, MASK_AT)? & MNT_OPTS == 0 {
        // It has none, or the kernel does not know of them; no overlay has none.
        return None;
    }
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let at = u32::from_ne_bytes(bytes.get(OPTIONS_AT..OPTIONS_AT + 4)?.try_into().ok()?);
    let options = bytes.get(STRINGS_AT + usize::try_from(at).ok()?..)?;
    let options = options.split(|byte| *byte == 0).next()?;
    Some(names_upper(options, upper))
}

/// A field of 64 bits.
fn number(answer: &[u64], at: usize) -> Option<u64> {
    answer.get(at / size_of::<u64>()).copied()
}
