//! A container on its kept filesystem is as it would be on its image.

use std::fs;
use std::path::Path;

use rootfs::Attached;
use rootfs::namespace::NamespaceThread;
use rustix::fs::OFlags;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::container;
use crate::node::Node;

#[test]
fn i5_the_container_sees_its_image_and_all_its_mounts() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/os-release", Some("base")),
                ("usr/bin/tool", Some("old")),
                ("proc", None),
            ],
        );
        let top = node.layer("top", &[("usr/bin/tool", Some("new"))]);
        let volume = node.path("volume");
        fs::create_dir_all(volume.join("deep")).unwrap();
        fs::write(volume.join("file"), "of the volume").unwrap();
        let provider = node.provider(&[&top, &base]);
        let mut consumer = node
            .consumer("consumer")
            .bind(&volume, "/data", "private")
            .tmpfs("/data/deep")
            .tmpfs("/run/secrets")
            .start();
        assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
        consumer.write("/data/deep/token", "t").unwrap();

        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);

        assert_eq!(consumer.read("/usr/bin/tool").unwrap(), "new");
        assert_eq!(consumer.read("/etc/os-release").unwrap(), "base");
        assert!(
            consumer.read("/exec-wrapper").is_err(),
            "the wrapper image is gone"
        );
        assert_eq!(consumer.read("/etc/hosts").unwrap(), "hosts of the pod");
        assert_eq!(consumer.read("/data/file").unwrap(), "of the volume");
        assert_eq!(consumer.read("/data/deep/token").unwrap(), "t");
        let expected = [
            "/",
            "/proc",
            "/dev",
            "/dev/shm",
            "/etc/hosts",
            "/data",
            "/data/deep",
            "/run/secrets",
        ];
        let mut mountpoints = consumer.mountpoints();
        mountpoints.sort();
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        assert_eq!(mountpoints, sorted);
        // Mountpoints are made as runtimes make them.
        assert_eq!(
            fs::metadata(node.upper("/data")).unwrap().permissions(),
            std::os::unix::fs::PermissionsExt::from_mode(0o40755)
        );
        assert_eq!(
            fs::read_to_string(node.upper("/etc/hosts")).unwrap(),
            "",
            "nothing that is mounted is copied"
        );
    });
}

#[test]
fn i5_huge_pages_are_moved_like_anything_else() {
    // linux/magic.h
    const HUGETLBFS: u64 = 0x9584_58f6;
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").mount("hugetlbfs", "/hugepages").start();
        consumer.write("/hugepages/none", "").unwrap();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(consumer.list("/hugepages").unwrap(), "none");
        let root = consumer.process.root(&node.proc).unwrap();
        let mounted = root.open("hugepages".as_ref(), OFlags::PATH).unwrap();
        let kind = rustix::fs::fstatfs(mounted).unwrap().f_type;
        assert_eq!(u64::try_from(kind), Ok(HUGETLBFS));
    });
}

#[test]
fn files_survive_stop_and_start() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("first").start();
        node.attach(&provider, &consumer).unwrap();
        consumer.write("/etc/motd", "changed").unwrap();
        consumer.write("/new", "file").unwrap();
        consumer.end();

        let mut consumer = node.consumer("second").start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "changed");
        assert_eq!(consumer.read("/new").unwrap(), "file");
        assert_eq!(
            fs::read_to_string(base.join("etc/motd")).unwrap(),
            "hello",
            "the image is untouched"
        );
    });
}

#[test]
fn i5_a_read_only_root_stays_read_only_and_its_volumes_writable() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").tmpfs("/tmp").read_only().start();
        assert!(consumer.write("/x", "x").is_err());
        node.attach(&provider, &consumer).unwrap();
        let error = consumer.write("/etc/motd", "x").unwrap_err();
        assert!(error.contains("Read-only"), "{error}");
        consumer.write("/tmp/x", "x").unwrap();
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
    });
}

#[test]
fn i5_the_working_directory_is_made_as_a_runtime_makes_it() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let wrapper = node.layer("wrapper", &[("srv/app/data", None)]);
        assert!(wrapper.is_dir());
        let mut consumer = node
            .consumer("consumer")
            .working_directory("/srv/app/data")
            .start();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(consumer.stat("/srv/app/data").unwrap(), "directory 755 0:0");
        consumer.enter("/srv/app/data").unwrap();
        consumer.write("here", "x").unwrap();
        assert_eq!(consumer.working_directory().unwrap(), "/srv/app/data");
        assert_eq!(fs::read_to_string(node.upper("/srv/app/data/here")).unwrap(), "x");
    });
}

#[test]
fn a_host_to_container_mount_keeps_receiving_and_sends_nothing_back() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let shared = node.path("shared");
        fs::create_dir_all(shared.join("later")).unwrap();
        container::attach(container::new_mount("tmpfs", &[]), &shared);
        fs::create_dir_all(shared.join("later")).unwrap();
        mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
        let provider = node.provider(&[&base]);
        let mut consumer = node
            .consumer("consumer")
            .bind(&shared, "/shared", "slave")
            .start();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(consumer.list("/shared/later").unwrap(), "");

        container::attach(container::new_mount("tmpfs", &[]), &shared.join("later"));
        fs::write(shared.join("later/file"), "x").unwrap();
        assert_eq!(consumer.read("/shared/later/file").unwrap(), "x");

        unmount(shared.join("later"), UnmountFlags::DETACH).unwrap();
        assert_eq!(consumer.list("/shared/later").unwrap(), "");
        drop(consumer);
        unmount(&shared, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn i5_a_bidirectional_mount_stays_bidirectional() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let shared = node.path("shared");
        fs::create_dir_all(&shared).unwrap();
        container::attach(container::new_mount("tmpfs", &[]), &shared);
        for name in ["by-the-container", "by-the-node"] {
            fs::create_dir(shared.join(name)).unwrap();
        }
        mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
        container::attach(container::new_mount("tmpfs", &[]), &shared.join("by-the-node"));
        fs::write(shared.join("by-the-node/file"), "n").unwrap();
        let provider = node.provider(&[&base]);
        let mut consumer = node
            .consumer("consumer")
            .bind(&shared, "/shared", "shared")
            .start();
        node.attach(&provider, &consumer).unwrap();
        // Detaching the old root took nothing away on the node.
        assert_eq!(fs::read_to_string(shared.join("by-the-node/file")).unwrap(), "n");
        assert_eq!(consumer.read("/shared/by-the-node/file").unwrap(), "n");

        let theirs = consumer.process.mount_namespace(&node.proc).unwrap();
        NamespaceThread::run(|thread| {
            thread.enter(&theirs).unwrap();
            let inside = Path::new("/shared/by-the-container");
            container::attach(container::new_mount("tmpfs", &[]), inside);
            fs::write(inside.join("file"), "c").unwrap();
        })
        .unwrap();
        assert_eq!(
            fs::read_to_string(shared.join("by-the-container/file")).unwrap(),
            "c"
        );
        drop(consumer);
        unmount(&shared, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn i5_the_root_has_mode_and_owner_of_the_image() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(consumer.stat("/").unwrap(), "directory 755 0:0");
    });
}
