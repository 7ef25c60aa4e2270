//! Deletion of trees that were made to stay.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::disk::Disk;
use crate::node::Node;

fn chattr(attribute: &str, path: &Path) {
    let output = Command::new("chattr").arg(attribute).arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A chain of directories that goes deeper than descriptors are held; the deepest has a file.
fn deep(top: &Path) {
    let mut directory: OwnedFd = fs::File::open(top).unwrap().into();
    for _ in 0..200 {
        mkdirat(&directory, "d", Mode::RWXU).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
    }
    openat(&directory, "file", OFlags::CREATE, Mode::RUSR).unwrap();
}

/// What lies deep is moved to the top, and the top takes nothing.
#[test]
fn i11_removal_of_a_deep_tree_whose_top_takes_nothing() {
    Node::with(|node| {
        let disk = Disk::make(node, &node.path("disk.image"), 32, 1024);
        for attribute in ["+i", "+a"] {
            let kept = node.kept();
            let upper = node.upper("");
            deep(&upper);
            chattr(attribute, &upper);
            kept.clear().unwrap_or_else(|e| panic!("{attribute}: {e:?}"));
            assert!(!kept.has_upper().unwrap(), "{attribute}");
        }
        drop(disk);
    });
}

#[test]
fn i11_removal_of_locked_files() {
    Node::with(|node| {
        let disk = Disk::make(node, &node.path("disk.image"), 32, 1024);
        let kept = node.kept();
        let locked = node.upper("a/b");
        fs::create_dir_all(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        for path in [locked.join("file"), locked.clone(), node.upper("a")] {
            chattr("+i", &path);
        }
        kept.clear().unwrap();
        assert!(!kept.has_upper().unwrap());
        drop(disk);
    });
}
