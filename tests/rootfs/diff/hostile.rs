//! What a user may put into the upper directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Instant;

use rootfs::Store;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::{Scope, Source, changes, changes_at, diff};
use crate::node::Node;

/// H14: links lead nowhere, and special files are not opened.
#[test]
fn h14_links_and_special_files_are_entries_and_no_more() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/passwd", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        drop(node.kept());
        fs::create_dir_all(node.upper("/d")).unwrap();
        symlink("/", node.upper("/d/root")).unwrap();
        symlink("../../../..", node.upper("/d/up")).unwrap();
        mknodat(CWD, node.upper("/d/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        // A file of the image became a FIFO: the comparison must not wait for a writer.
        fs::create_dir_all(node.upper("/etc")).unwrap();
        mknodat(CWD, node.upper("/etc/passwd"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::write(node.upper("/d").join(OsStr::from_bytes(b"\xff\n")), "x").unwrap();
        let found = changes_at(node, &provider, "/", None).unwrap();
        let paths: Vec<_> = found
            .iter()
            .map(|change| change.path.as_os_str().as_bytes())
            .collect();
        let expected: [&[u8]; 6] = [
            b"/d",
            b"/d/fifo",
            b"/d/root",
            b"/d/up",
            b"/d/\xff\n",
            b"/etc/passwd",
        ];
        assert_eq!(paths, expected);
    });
}

/// H15: marks of an overlay that a user without its own user namespace cannot make, and those that
/// he can.
#[test]
fn h15_marks_in_the_users_namespace_mean_nothing() {
    Node::with(|node| {
        let base = node.layer("base", &[("a/b", Some("x"))]);
        let provider = node.provider(&[&base]);
        drop(node.kept());
        fs::create_dir_all(node.upper("/a")).unwrap();
        for (name, value) in [
            ("user.overlay.opaque", "y"),
            ("trusted.overlay.opaque", "yes, really so"),
        ] {
            setxattr(node.upper("/a"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
        }
        let found = changes(node, &provider);
        assert_eq!(
            found,
            ["~/a/"],
            "the attribute is a change, and nothing is hidden"
        );
    });
}

#[test]
fn h14_a_mount_in_the_data_is_not_entered() {
    Node::with(|node| {
        let base = node.layer("base", &[("a", None)]);
        let provider = node.provider(&[&base]);
        drop(node.kept());
        let mountpoint = node.upper("/mounted");
        fs::create_dir(&mountpoint).unwrap();
        crate::container::attach(crate::container::new_mount("tmpfs", &[]), &mountpoint);
        fs::write(mountpoint.join("file"), "not kept").unwrap();
        let found = changes(node, &provider);
        rustix::mount::unmount(&mountpoint, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(found, [""; 0]);
    });
}

/// What cannot be reached makes the answer incomplete, and so do the time and a receiver that has
/// enough.
#[test]
fn h9_depth_time_and_the_receiver_bound_the_work() {
    Node::with(|node| {
        let base = node.layer("base", &[("a", None)]);
        let provider = node.provider(&[&base]);
        let kept = node.kept();
        let mut directory = fs::File::open(node.upper("")).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            directory = rustix::fs::openat(&directory, "d", flags, Mode::empty())
                .unwrap()
                .into();
        }
        let source = Source {
            proc: &node.proc,
            node: &node.namespace,
            image: &provider.process,
            kept: &kept,
        };
        let mountpoints = super::HashSet::new();
        let scope = |until| Scope {
            path: "/".as_ref(),
            depth: None,
            mountpoints: &mountpoints,
            until,
        };
        let mut count = 0;
        let complete = diff(source, scope(Instant::now() + super::TIME), &mut |_| {
            count += 1;
            true
        });
        assert!(!complete.unwrap() && count > 2000, "{count}");
        let complete = diff(source, scope(Instant::now()), &mut |_| true);
        assert!(!complete.unwrap());
        let mut count = 0;
        let stopped = diff(source, scope(Instant::now() + super::TIME), &mut |_| {
            count += 1;
            count < 3
        });
        assert!(matches!(stopped, Err(super::DiffError::Stopped)), "{stopped:?}");
        assert_eq!(count, 3);
        let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
        store.remove(&node.key).unwrap();
    });
}
