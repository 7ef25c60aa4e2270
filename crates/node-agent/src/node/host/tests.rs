//! With real mounts, on a private copy of the machine's mount namespace. Needs root.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A node and a directory on it.
pub(crate) fn on_node(test: impl FnOnce(&Host, &Path) + Send) {
    let directory = tempfile::tempdir().unwrap();
    NamespaceThread::run(|thread| {
        thread.enter_private_copy().unwrap();
        let proc = Proc::open().unwrap();
        let namespace = Namespace::new(proc.open_at("thread-self/ns/mnt", OFlags::RDONLY).unwrap());
        let root = Root::of_this_thread().unwrap();
        let host = Host {
            proc,
            namespace,
            root,
        };
        let before = host.proc.own_mounts().unwrap().mounts().len();
        test(&host, directory.path());
        assert_eq!(
            host.proc.own_mounts().unwrap().mounts().len(),
            before,
            "a mount is left"
        );
    })
    .unwrap();
}

fn source(host: &Host, directory: &Path) -> OwnedFd {
    let source = host.create_directory(&directory.join("source")).unwrap();
    fs::write(directory.join("source/file"), "x").unwrap();
    source
}

#[test]
fn f23_a_volume_is_mounted_once_however_often_it_is_published() {
    on_node(|host, directory| {
        let source = source(host, directory);
        let target = directory.join("target");
        for _ in 0..10 {
            host.mount_volume(&source, &target).unwrap();
        }
        let table = host.proc.own_mounts().unwrap();
        let mounts: Vec<_> = table.mounts().iter().filter(|m| m.mountpoint == target).collect();
        assert_eq!(mounts.len(), 1);
        let flags = mounts[0].flags;
        assert!(flags.read_only && flags.no_suid && flags.no_dev && !flags.no_exec);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x");
        assert!(fs::write(target.join("file"), "y").is_err());
        assert_eq!(host.target(&target).unwrap(), Target::Mounted);
        host.unmount_volume(&target).unwrap();
        assert!(!target.exists());
    });
}

#[test]
fn f23_unpublishing_what_is_not_there_succeeds() {
    on_node(|host, directory| {
        for target in ["missing", "missing/as/well"] {
            host.unmount_volume(&directory.join(target)).unwrap();
            assert_eq!(host.target(&directory.join(target)).unwrap(), Target::Missing);
        }
        fs::create_dir(directory.join("empty")).unwrap();
        host.unmount_volume(&directory.join("empty")).unwrap();
        assert!(!directory.join("empty").exists());
    });
}

#[test]
fn f17_a_mount_that_was_not_restricted_yet_is_restricted_by_the_next_attempt() {
    on_node(|host, directory| {
        let source = source(host, directory);
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        mount_bind(directory.join("source"), &target).unwrap();
        host.mount_volume(&source, &target).unwrap();
        assert!(fs::write(target.join("file"), "y").is_err());
        host.unmount_volume(&target).unwrap();
    });
}

#[test]
fn nothing_is_deleted_recursively_at_a_target() {
    on_node(|host, directory| {
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("file"), "stays").unwrap();
        assert!(host.unmount_volume(&target).is_err());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "stays");
    });
}

#[test]
fn h14_a_target_that_is_a_link_is_refused() {
    on_node(|host, directory| {
        let source = source(host, directory);
        fs::create_dir(directory.join("elsewhere")).unwrap();
        symlink(directory.join("elsewhere"), directory.join("target")).unwrap();
        assert!(host.mount_volume(&source, &directory.join("target")).is_err());
        assert!(host.unmount_volume(&directory.join("target")).is_err());
        assert_eq!(
            host.target(&directory.join("elsewhere")).unwrap(),
            Target::Directory
        );
    });
}
