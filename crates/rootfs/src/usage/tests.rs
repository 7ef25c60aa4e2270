use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::*;

fn measured(top: &Path) -> Usage {
    measure(File::open(top).unwrap(), Instant::now() + Duration::from_mins(1)).unwrap()
}

fn size_of(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks() * 512
}

#[test]
fn what_is_on_the_disk_counts_and_a_file_with_two_names_counts_once() {
    let top = tempfile::tempdir().unwrap();
    let below = top.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("file"), vec![7; 300_000]).unwrap();
    let before = measured(top.path());
    assert!(before.complete);
    assert_eq!(before.inodes, 4);
    let expected = [top.path(), &top.path().join("a"), &below, &below.join("file")];
    assert_eq!(before.bytes, expected.map(size_of).iter().sum::<u64>());
    for name in ["second", "third"] {
        fs::hard_link(below.join("file"), top.path().join(name)).unwrap();
    }
    let after = measured(top.path());
    assert_eq!(after.inodes, before.inodes);
    assert!(
        after.bytes.abs_diff(before.bytes) < 300_000,
        "{after:?} after {before:?}"
    );
}

#[test]
fn holes_take_no_space() {
    let top = tempfile::tempdir().unwrap();
    File::create(top.path().join("hole"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(measured(top.path()).bytes < 1 << 20);
}

/// H14: a link out of the tree, to a directory or a file, is an entry and no more.
#[test]
fn h14_links_are_not_followed() {
    let (top, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("file"), vec![7; 300_000]).unwrap();
    symlink(other.path(), top.path().join("directory")).unwrap();
    symlink(other.path().join("file"), top.path().join("file")).unwrap();
    symlink("..", top.path().join("up")).unwrap();
    let usage = measured(top.path());
    assert_eq!(usage.inodes, 4);
    assert!(usage.bytes < 300_000, "{usage:?}");
}

/// In a tree deeper than PATH_MAX, the measurement reports what it could not reach, and keeps no
/// descriptors open for it.
#[test]
fn a_tree_too_deep_for_a_path_is_measured_as_far_as_one_reaches() {
    let top = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::openat(rustix::fs::CWD, top.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let usage = measured(top.path());
    assert!(!usage.complete);
    assert!(usage.inodes > 2000, "{usage:?}");
    let parent = File::open(top.path()).unwrap();
    crate::remove::tree(parent.as_fd(), "d").unwrap();
}

#[test]
fn the_time_is_a_bound() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("a")).unwrap();
    let usage = measure(File::open(top.path()).unwrap(), Instant::now()).unwrap();
    assert!(!usage.complete);
}
