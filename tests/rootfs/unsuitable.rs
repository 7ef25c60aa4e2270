//! H26: file systems on which changes could not be kept as they are, refused by name before
//! anything is written.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rootfs::store::StoreError;
use rootfs::{AttachError, Store};

use crate::container;
use crate::disk::{self, Disk};
use crate::node::Node;

/// New data is not begun there, and data that an administrator moved there is not used.
fn is_refused(node: &Node, words: &str) {
    let prefix = node.path("store");
    let root = node.root();
    let stat = root.stat().unwrap();
    let before = listing(&prefix);
    let store = Store::create(&root, &prefix).unwrap();
    let error = store.create_key("new", &stat).unwrap_err();
    assert!(matches!(error, StoreError::Unsuitable(..)), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(listing(&prefix), before, "something was written");

    // As a copy of a whole store has it, where mounting would still succeed.
    for directory in ["upper", "work"] {
        fs::create_dir_all(prefix.join(&node.key).join(directory)).unwrap();
    }
    let kept = store.get(&node.key).unwrap().unwrap();
    let base = node.layer("base", &[("etc/motd", Some("of the image"))]);
    let provider = node.provider(&[&base]);
    let mut consumer = node.consumer("consumer").start();
    let before = listing(&prefix);
    let error = node.attach_to(&kept, &provider, &consumer).unwrap_err();
    assert!(
        matches!(&error, AttachError::Store(error) if error.to_string().contains(words)),
        "{error:?}"
    );
    assert_eq!(listing(&prefix), before, "something was written");
    assert_eq!(
        consumer.read("/exec-wrapper").unwrap(),
        "wrapper",
        "it is as it was"
    );
}

#[test]
fn h26_without_extended_attributes() {
    Node::with(|node| {
        let prefix = node.path("store");
        fs::create_dir(&prefix).unwrap();
        container::attach(container::new_mount("ramfs", &[]), &prefix);
        is_refused(node, "has no extended attributes");
        disk::unmount(&prefix);
    });
}

/// It has all that an overlay needs, and nothing after a reboot.
#[test]
fn h26_i1_on_a_tmpfs() {
    Node::with(|node| {
        let prefix = node.path("store");
        fs::create_dir(&prefix).unwrap();
        let mode = [("mode", "0700".to_owned())];
        container::attach(container::new_mount("tmpfs", &mode), &prefix);
        is_refused(node, "is on a tmpfs, which a reboot of the node empties");
        disk::unmount(&prefix);
    });
}

#[test]
fn h26_without_types_of_directory_entries() {
    Node::with(|node| {
        let disk = Disk::make_with(
            node,
            &node.path("disk.image"),
            16,
            &["-O", "^filetype"].map(OsStr::new),
        );
        is_refused(node, "does not report the types of directory entries");
        drop(disk);
    });
}

#[test]
fn h26_on_another_overlay() {
    Node::with(|node| {
        let prefix = node.path("store");
        let (lower, upper, work) = (node.path("lower"), node.path("upper"), node.path("work"));
        for path in [&prefix, &lower, &upper, &work] {
            fs::create_dir(path).unwrap();
        }
        let option = |path: &Path| path.display().to_string();
        let options = [
            ("lowerdir", option(&lower)),
            ("upperdir", option(&upper)),
            ("workdir", option(&work)),
        ];
        container::attach(container::new_mount("overlay", &options), &prefix);
        is_refused(node, "is on an overlay file system");
        disk::unmount(&prefix);
    });
}

/// Every path below a directory, with its time of change.
fn listing(directory: &Path) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            found.push((entry.path(), about.modified().unwrap()));
            if about.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
