//! I9: whoever moves a container may die at any point; the next attempt brings it to the same state.

use std::fs;
use std::os::fd::AsFd;

use rootfs::namespace::Visitor;
use rootfs::overlay::{Overlay, Upper};
use rootfs::{AttachError, Attached};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, move_mount};

use crate::container::Container;
use crate::node::Node;

/// Leaves a container as somebody who died before the change-over would: the kept filesystem on the staging
/// directory, with one of the mounts already below it.
fn half_done(node: &Node, layer: &std::path::Path, container: &Container) {
    let kept = node.kept();
    let theirs = container.process.mount_namespace(&node.proc).unwrap();
    Visitor::run(|visitor| {
        visitor.enter(&node.namespace).unwrap();
        let layer = rustix::fs::open(layer, OFlags::PATH, Mode::empty()).unwrap();
        let (upper, work) = (format!("{}/upper", node.key), format!("{}/work", node.key));
        let overlay = Overlay {
            lower: vec![layer.as_fd()],
            upper: Some(Upper {
                base: kept.store(),
                upper: &upper,
                work: &work,
            }),
            exclusive: false,
        };
        let overlay = overlay.mount(visitor).unwrap();
        visitor.enter(&theirs).unwrap();
        fs::create_dir_all("/.stoppablecontainer-root").unwrap();
        let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&overlay, "", rustix::fs::CWD, "/.stoppablecontainer-root", from).unwrap();
        fs::create_dir_all("/.stoppablecontainer-root/dev").unwrap();
        rustix::mount::mount_bind_recursive("/dev", "/.stoppablecontainer-root/dev").unwrap();
    })
    .unwrap();
}

#[test]
fn i9_f17_dead_before_the_change_over() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut clean = node.consumer("clean").start();
        node.attach(&provider, &clean).unwrap();
        let expected = clean.mountpoints();
        clean.end();

        let consumer = node.consumer("consumer").start();
        while matches!(
            node.attach(&provider, &consumer),
            Err(AttachError::Held(_) | AttachError::Busy)
        ) {}
        consumer.end();
        let mut consumer = node.consumer("again").start();
        half_done(node, &base, &consumer);
        let attached = loop {
            match node.attach(&provider, &consumer) {
                Err(AttachError::Held(_) | AttachError::Busy) => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        assert_eq!(attached, Attached::Now);
        assert_eq!(consumer.mountpoints(), expected);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
        assert!(consumer.read("/.stoppablecontainer-root").is_err());
    });
}

#[test]
fn i9_f17_dead_after_the_change_over() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        let expected = consumer.mountpoints();
        // The old root still on top of the new one: what a pivot_root leaves.
        let theirs = consumer.process.mount_namespace(&node.proc).unwrap();
        Visitor::run(|visitor| {
            visitor.enter(&theirs).unwrap();
            let root = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
            let old = crate::container::new_mount("tmpfs", &[]);
            let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&old, "", &root, "", empty).unwrap();
        })
        .unwrap();
        assert_eq!(consumer.mountpoints().len(), expected.len() + 1);
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Already);
        assert_eq!(consumer.mountpoints(), expected);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
    });
}

#[test]
fn i9_a_failed_attempt_leaves_nothing_behind() {
    Node::with(|node| {
        let base = node.layer("base", &[("data", Some("a file"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").tmpfs("/data").start();
        let before = consumer.mountpoints();
        for _ in 0..3 {
            assert!(node.attach(&provider, &consumer).is_err());
            assert_eq!(consumer.mountpoints(), before);
        }
    });
}
