//! The question whether a kept filesystem is in use, and what it does to the disk that all of them
//! share.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;

use rootfs::Attached;
use rootfs::holders::{self, Use};
use rootfs::namespace::NamespaceThread;
use rootfs::overlay::{Overlay, OverlayError, Upper};
use rustix::fs::{StatVfsMountFlags, fstatvfs};

use crate::disk::{self, Disk, Hardware};
use crate::kernel;
use crate::node::Node;

/// A writable overlay syncs the whole file system under its upper directory when it goes, a
/// read-only one does not; and the question makes one that goes at once.
#[test]
fn i2_an_overlay_that_asks_is_read_only_and_refused_all_the_same() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let kept = node.kept();
        for name in ["probe/upper", "probe/work"] {
            fs::create_dir_all(node.path("store").join(&node.key).join(name)).unwrap();
        }
        let ask = || {
            NamespaceThread::run(|thread| {
                thread.enter(&node.namespace).unwrap();
                let upper = kept.upper().unwrap();
                let overlay = Overlay {
                    lower: vec![upper.as_fd()],
                    upper: Some(Upper {
                        base: kept.store(),
                        upper: &format!("{}/probe/upper", node.key),
                        work: &format!("{}/probe/work", node.key),
                    }),
                    exclusive: true,
                    volatile: false,
                    context: None,
                };
                let overlay = overlay.mount(thread)?;
                Ok::<_, OverlayError>(fstatvfs(&overlay).unwrap().f_flag)
            })
            .unwrap()
        };
        assert!(ask().unwrap().contains(StatVfsMountFlags::RDONLY));
        let consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        assert!(matches!(ask(), Err(OverlayError::InUse)));
        kernel::tell("an upper directory in use is refused as a layer with index=on");
    });
}

/// With inodes that have no room for attributes of their own, the overlay that asks needs a block
/// for one. Where there is none the kernel makes it with `index=off`, and such an overlay is
/// refused nothing.
#[test]
fn i2_f22_a_question_that_the_kernel_weakened_is_not_answered_free() {
    Node::with(|node| {
        let provider = node.provider(&[&node.layer("base", &[("etc/motd", Some("hello"))])]);
        let small = ["-I", "128", "-N", "256"].map(OsStr::new);
        let disk = Disk::make_with(node, &node.path("disk.image"), 16, &small);
        let kept = node.kept();
        let ask = || {
            NamespaceThread::run(|thread| {
                thread.enter(&node.namespace).unwrap();
                holders::probe(thread, &kept)
            })
            .unwrap()
        };
        assert_eq!(ask().unwrap(), Use::Free);
        let consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(ask().unwrap(), Use::Held);
        disk::fill(&node.path("store/filler"));
        // Every block that a question frees is taken by a neighbour.
        for number in 0..8 {
            let answer = ask();
            assert!(!matches!(answer, Ok(Use::Free)), "{answer:?} at {number}");
            disk::fill(&node.path(&format!("store/filler-{number}")));
        }
        consumer.end();
        fs::remove_file(node.path("store/filler")).unwrap();
        let consumer = node.consumer("again").start();
        assert_eq!(node.attach_when_free(&provider, &consumer), Attached::Now);
        consumer.end();
        drop(disk);
    });
}

/// The test for other users of the data does not write back what a neighbour has not synced.
#[test]
fn i2_the_question_does_not_write_back_what_others_have_not_synced() {
    const MEGABYTES: u64 = 24;
    Node::with(|node| {
        let hardware = Hardware::make(node, MEGABYTES);
        let disk = Disk::make(node, &hardware.disk(), MEGABYTES, 1024);
        let kept = node.kept();
        let ask = || {
            NamespaceThread::run(|thread| {
                thread.enter(&node.namespace).unwrap();
                holders::probe(thread, &kept).unwrap()
            })
            .unwrap()
        };
        // The first one makes directories; that is over and on the disk before what is looked at.
        assert_eq!(ask(), Use::Free);
        kept.sync().unwrap();
        let written = |marker: &str| {
            let disk = fs::read(hardware.disk()).unwrap();
            disk.windows(marker.len())
                .any(|window| window == marker.as_bytes())
        };
        // The kernel writes back by itself after some seconds, so this may have to be tried again.
        let quiet = (0..5).any(|attempt| {
            let marker = format!("not synced {attempt} by a neighbour");
            fs::write(node.path("store").join("neighbour"), &marker).unwrap();
            assert_eq!(ask(), Use::Free);
            !written(&marker)
        });
        assert!(quiet, "the question writes back everything");
        let marker = "synced by a neighbour";
        fs::write(node.path("store").join("neighbour"), marker).unwrap();
        kept.sync().unwrap();
        assert!(written(marker), "this test does not see what is written");
        drop(disk);
        drop(hardware);
    });
}
