//! Directories of kept filesystems.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rootfs::store::StoreError;
use rootfs::{Attached, Store};

use crate::node::Node;

#[test]
fn h14_only_root_reaches_the_data() {
    Node::with(|node| {
        drop(node.kept());
        let mode = |path: &str| fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("store"), 0o700);
        assert_eq!(mode(&format!("store/{}", node.key)), 0o700);
    });
}

#[test]
fn a_prefix_that_others_can_write_is_refused() {
    Node::with(|node| {
        let path = node.path("store");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            Store::open(&node.root(), &path),
            Err(StoreError::Unsafe(_))
        ));
        assert!(matches!(
            Store::create(&node.root(), &path),
            Err(StoreError::Unsafe(_))
        ));
    });
}

#[test]
fn h9_keys_are_plain_names() {
    Node::with(|node| {
        let store = Store::create(&node.root(), &node.path("store")).unwrap();
        for key in ["", ".", "..", "a/b", "a\n", "a,b", &"x".repeat(129)] {
            assert!(matches!(store.get(key), Err(StoreError::Key(_))), "{key:?}");
            assert!(matches!(store.remove(key), Err(StoreError::Key(_))), "{key:?}");
        }
    });
}

/// The kernel remembers the inodes of directories that were asked about; those of a restored backup
/// are others.
#[test]
fn h26_data_that_was_restored_is_usable() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.write_durable("/etc/motd", "kept").unwrap();
        first.end();
        let (data, saved) = (node.path("store").join(&node.key), node.path("store/saved"));
        fs::rename(&data, &saved).unwrap();
        let copy = Command::new("cp")
            .arg("-a")
            .arg(&saved)
            .arg(&data)
            .status()
            .unwrap();
        assert!(copy.success());
        let mut second = node.consumer("second").start();
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
        assert_eq!(second.read("/etc/motd").unwrap(), "kept");
    });
}

#[test]
fn a_record_is_replaced_as_a_whole() {
    Node::with(|node| {
        let kept = node.kept();
        assert_eq!(kept.record().unwrap(), None);
        kept.set_record(b"one").unwrap();
        kept.set_record(b"2").unwrap();
        assert_eq!(kept.record().unwrap(), Some(b"2".to_vec()));
    });
}

#[test]
fn i11_removal_takes_everything_and_nothing_else() {
    Node::with(|node| {
        let kept = node.kept();
        let outside = node.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        let upper = node.upper("");
        symlink(&outside, upper.join("link")).unwrap();
        symlink("/nowhere", upper.join("dangling")).unwrap();
        fs::create_dir_all(upper.join("a/b/c")).unwrap();
        fs::write(upper.join("a/b/c/file"), "x").unwrap();
        fs::hard_link(outside.join("file"), upper.join("hard")).unwrap();
        fs::set_permissions(upper.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        drop(kept);
        let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
        store.remove(&node.key).unwrap();
        assert_eq!(
            entries(&node.path("store")),
            [".id"],
            "the directory keeps its identifier"
        );
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
        store.remove(&node.key).unwrap();
    });
}

#[test]
fn i11_removal_of_a_tree_deeper_than_any_path() {
    Node::with(|node| {
        drop(node.kept());
        let mut directory = fs::File::open(node.upper("")).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            directory = rustix::fs::openat(&directory, "d", flags, rustix::fs::Mode::empty())
                .unwrap()
                .into();
        }
        let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
        store.remove(&node.key).unwrap();
        assert_eq!(
            entries(&node.path("store")),
            [".id"],
            "the directory keeps its identifier"
        );
    });
}

#[test]
fn i11_removal_does_not_cross_a_mount() {
    Node::with(|node| {
        drop(node.kept());
        let mountpoint = node.upper("/mounted");
        fs::create_dir(&mountpoint).unwrap();
        crate::container::attach(crate::container::new_mount("tmpfs", &[]), &mountpoint);
        fs::write(mountpoint.join("file"), "stays").unwrap();
        let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
        assert!(store.remove(&node.key).is_err());
        assert_eq!(fs::read_to_string(mountpoint.join("file")).unwrap(), "stays");
        rustix::mount::unmount(&mountpoint, rustix::mount::UnmountFlags::DETACH).unwrap();
        store.remove(&node.key).unwrap();
    });
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
