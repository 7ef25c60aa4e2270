//! F22: the disk of the kept filesystems is full, has no inodes left, is read-only or fails.

use std::error::Error;
use std::fs;

use rootfs::store::StoreError;
use rootfs::{AttachError, Attached, Request, Store};
use rustix::io::Errno;

use crate::container::Container;
use crate::disk::{self, Disk};
use crate::kernel;
use crate::node::Node;

const NO_SPACE: &str = "No space left on device (os error 28)";

/// A consumer starts and reads on a full disk. Its own writes fail with the reason, and it can go
/// on after it deletes some of its files. A container that has no data yet is refused with the
/// reason.
#[test]
fn f22_a_full_disk() {
    Node::with(|node| {
        let provider = provider(node);
        let disk = Disk::make(node, &node.path("disk.image"), 16, 256);
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.write_durable("/etc/motd", "kept").unwrap();
        let large = "x".repeat(50_000);
        first.write_durable("/large", &large).unwrap();
        let filler = node.path("store/filler");
        disk::fill(&filler);
        // The writes of a consumer that runs already fail too, and it keeps the files it had.
        assert_eq!(first.write("/more", &large), Err(NO_SPACE.to_owned()));
        first.end();
        assert_eq!(create_another(node).unwrap_err(), Errno::NOSPC);

        let mut second = node.consumer("second").start();
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
        assert_eq!(second.read("/etc/motd").unwrap(), "kept");
        assert_eq!(second.write("/more", &large), Err(NO_SPACE.to_owned()));
        second.remove("/large").unwrap();
        second.write_durable("/small", "x").unwrap();
        fs::remove_file(filler).unwrap();
        second.write_durable("/more", &large).unwrap();
        second.end();
        create_another(node).unwrap();
        drop(disk);
    });
}

/// The same where not the disk is full, but a quota: its owner gets another error, and the same
/// ways on.
#[test]
fn f22_a_quota() {
    const OVER_QUOTA: &str = "Disk quota exceeded (os error 122)";
    Node::with(|node| {
        let provider = provider(node);
        let disk = Disk::make_with_quota(node, &node.path("disk.image"), 4);
        keep(node, &provider);
        let mut second = node.consumer("second").start();
        works(node, &provider, &mut second);
        let filler = node.path("store/filler");
        disk::fill(&filler);
        let large = "x".repeat(500_000);
        assert_eq!(second.write_durable("/more", &large), Err(OVER_QUOTA.to_owned()));
        assert_eq!(second.read("/etc/motd").unwrap(), "kept");
        assert_eq!(create_another(node).unwrap_err(), Errno::DQUOT);
        second.end();

        fs::remove_file(filler).unwrap();
        let mut third = node.consumer("third").start();
        works(node, &provider, &mut third);
        third.write_durable("/more", &large).unwrap();
        third.end();
        create_another(node).unwrap();
        drop(disk);
    });
}

/// Without a free inode the container is not moved and stays as it was. It can be moved when there
/// are free inodes again.
#[test]
fn f22_a_disk_without_inodes() {
    Node::with(|node| {
        let provider = provider(node);
        let disk = Disk::make(node, &node.path("disk.image"), 16, 64);
        keep(node, &provider);
        let file = |number| node.path(&format!("store/file-{number}"));
        let files = (0..64)
            .take_while(|number| fs::write(file(*number), "").is_ok())
            .count();
        assert_eq!(create_another(node).unwrap_err(), Errno::NOSPC);

        let mut second = node.consumer("second").start();
        let error = node.attach(&provider, &second).unwrap_err();
        assert_eq!(cause(&error), NO_SPACE);
        assert_eq!(
            second.read("/exec-wrapper").unwrap(),
            "wrapper",
            "it is as it was"
        );
        for number in 0..files {
            fs::remove_file(file(number)).unwrap();
        }
        works(node, &provider, &mut second);
        second.end();
        drop(disk);
    });
}

/// The kernel would mount a read-only overlay: the container would start, and fail at its first
/// write.
#[test]
fn f22_a_read_only_disk() {
    Node::with(|node| {
        let provider = provider(node);
        let disk = Disk::make(node, &node.path("disk.image"), 16, 256);
        keep(node, &provider);
        disk.remount("ro");
        assert_eq!(create_another(node).unwrap_err(), Errno::ROFS);

        let mut second = node.consumer("second").start();
        let attached = node.attach(&provider, &second);
        assert!(matches!(attached, Err(AttachError::ReadOnly)), "{attached:?}");
        assert_eq!(
            second.read("/exec-wrapper").unwrap(),
            "wrapper",
            "it is as it was"
        );
        disk.remount("rw");
        works(node, &provider, &mut second);
        second.end();
        drop(disk);
    });
}

/// A disk fails to write, and its file system then refuses all writes. A container is not moved
/// there, and after a repair everything that was durable is there.
#[test]
fn f22_a_disk_that_fails() {
    Node::with(|node| {
        let provider = provider(node);
        // Blocks of the disk that were never written have no place in its image when this is full.
        let hardware = node.path("hardware");
        disk::small_tmpfs(&hardware, 8);
        let disk = Disk::make(node, &hardware.join("disk.image"), 64, 256);
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.write_durable("/etc/motd", "kept").unwrap();
        let filler = hardware.join("filler");
        disk::fill(&filler);
        let large = "x".repeat(100_000);
        // Its data cannot be written, and sooner or later the file system's journal neither, which
        // ends all writing.
        let mut failed = false;
        let mut ends = || {
            (0..200).any(|number| {
                let error = first.write_durable(&format!("/{number}"), &large).err();
                failed |= error.is_some();
                error.as_deref() == Some("Read-only file system (os error 30)")
            })
        };
        if !ends() {
            // Older kernels only report the error of data.
            disk.end_writing();
            assert!(first.write("/new", "").is_err(), "the disk takes writes");
        }
        assert!(failed, "the disk does not fail");
        first.end();

        let mut second = node.consumer("second").start();
        let kept = {
            let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
            store.get(&node.key).unwrap().unwrap()
        };
        let attached = loop {
            let request = Request {
                proc: &node.proc,
                node: &node.namespace,
                image: &provider.process,
                container: &second.process,
                users: None,
                kept: &kept,
                repeat: rootfs::Repeat::default(),
            };
            match rootfs::attach(request) {
                Err(AttachError::Held(_) | AttachError::Busy) => std::thread::yield_now(),
                attached => break attached,
            }
        };
        drop(kept);
        let error = attached.unwrap_err();
        kernel::tell(&format!("a start on a disk that failed: {error}"));
        // In between, ext4 fails such writes with EIO, and its mount is not read-only.
        let says_so = !kernel::is((6, 12)) || kernel::is((6, 15));
        assert!(!says_so || matches!(error, AttachError::ReadOnly), "{error:?}");
        assert_eq!(
            second.read("/exec-wrapper").unwrap(),
            "wrapper",
            "it is as it was"
        );
        fs::remove_file(filler).unwrap();
        let disk = disk.repair(node);
        works(node, &provider, &mut second);
        second.end();
        drop(disk);
        disk::unmount(&hardware);
    });
}

/// A disk loses data that a process wrote and did not sync. Every descriptor that was open on the
/// disk at that time reports the failure once, also after another descriptor has reported it.
#[test]
fn i7_every_open_descriptor_reports_a_failed_write() {
    Node::with(|node| {
        let provider = provider(node);
        let hardware = node.path("hardware");
        disk::small_tmpfs(&hardware, 8);
        let disk = Disk::make(node, &hardware.join("disk.image"), 64, 256);
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.write_durable("/etc/motd", "kept").unwrap();
        let open = || {
            let store = Store::open(&node.root(), &node.path("store")).unwrap().unwrap();
            store.get(&node.key).unwrap().unwrap()
        };
        let (neighbour, held) = (open(), open());
        held.sync().unwrap();
        disk::fill(&hardware.join("filler"));
        // It goes to the page cache only, and the process that wrote it never asks.
        first.write("/never-asked-for", &"x".repeat(2_000_000)).unwrap();
        assert!(neighbour.sync().is_err(), "the disk does not fail");
        assert!(held.sync().is_err(), "its consumer's loss would go unheard");
        assert!(open().sync().is_ok(), "who comes later has lost nothing");
        drop((neighbour, held));
        first.end();
        drop(disk);
        disk::unmount(&hardware);
    });
}

fn provider(node: &Node) -> Container {
    let base = node.layer("base", &[("etc/motd", Some("hello"))]);
    node.provider(&[&base])
}

/// A consumer that writes a file and ends.
fn keep(node: &Node, provider: &Container) {
    let mut first = node.consumer("first").start();
    node.attach(provider, &first).unwrap();
    first.write_durable("/etc/motd", "kept").unwrap();
    first.end();
}

/// The consumer comes to its files and can write.
fn works(node: &Node, provider: &Container, consumer: &mut Container) {
    assert_eq!(node.attach_when_free(provider, consumer), Attached::Now);
    assert_eq!(consumer.read("/etc/motd").unwrap(), "kept");
    consumer.write_durable("/new", "x").unwrap();
}

/// Makes a second kept filesystem on the disk.
fn create_another(node: &Node) -> Result<(), Errno> {
    let root = node.root().stat().unwrap();
    let created =
        Store::create(&node.root(), &node.path("store")).and_then(|store| store.create_key("another", &root));
    match created {
        Ok(_) => Ok(()),
        Err(StoreError::System { source, .. }) => Err(source),
        Err(error) => panic!("{error:?}"),
    }
}

/// What is at the bottom of an error.
fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
