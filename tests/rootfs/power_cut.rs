//! F20: the node's power fails while consumers write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rootfs::Attached;

use crate::disk::{Disk, Hardware};
use crate::node::Node;

/// How often the power fails.
const CUTS: usize = 20;
/// Files that the image has and the consumer changes.
const OLD: usize = 200;
const DISK_MEGABYTES: u64 = 24;

/// A consumer writes and syncs file after file. After a power cut at any moment, the next start has
/// all data whose sync succeeded, in new files and in changed files of the image. It also has the
/// complete record of the agent.
#[test]
fn f20_i1_what_was_synced_survives_a_power_cut_at_any_moment() {
    Node::with(|node| {
        let old: Vec<_> = (0..OLD).map(|i| format!("image/{i}")).collect();
        let files: Vec<_> = old.iter().map(|path| (path.as_str(), Some("old"))).collect();
        let base = node.layer("base", &files);
        let new = node.layer("new", &[("new", None)]);
        let provider = node.provider(&[&new, &base]);
        let hardware = Hardware::make(node, DISK_MEGABYTES);
        let disk = Disk::make(node, &hardware.disk(), DISK_MEGABYTES, 8192);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();

        let (synced, recorded, enough) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let mut cuts: Vec<(usize, usize, PathBuf)> = Vec::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let kept = node.kept();
                for i in 0.. {
                    if enough.load(Ordering::SeqCst) {
                        return;
                    }
                    consumer.write_durable(&path(i), &content(i)).unwrap();
                    synced.store(i + 1, Ordering::SeqCst);
                    // Never synced: what is lost of this may not harm the rest.
                    consumer.write(&format!("/new/dirty-{i}"), &content(i)).unwrap();
                    kept.set_record(content(i).as_bytes()).unwrap();
                    recorded.store(i + 1, Ordering::SeqCst);
                }
            });
            while cuts.len() < CUTS && !writer.is_finished() {
                let before = (synced.load(Ordering::SeqCst), recorded.load(Ordering::SeqCst));
                if cuts.last().is_some_and(|(last, ..)| *last == before.0) {
                    std::thread::yield_now();
                    continue;
                }
                let copy = node.path(&format!("cut-{}", cuts.len()));
                hardware.cut_power(&copy);
                cuts.push((before.0, before.1, copy));
            }
            enough.store(true, Ordering::SeqCst);
            writer.join().unwrap();
        });
        assert_eq!(cuts.len(), CUTS);
        consumer.end();
        drop(disk);
        drop(hardware);

        for (cut, (synced, recorded, copy)) in cuts.iter().enumerate() {
            let disk = Disk::mount(node, copy);
            let record = node.kept().record().unwrap();
            let record = record.map(|record| String::from_utf8(record).unwrap());
            let number = record.map(|record| {
                let number = record.split(' ').next().unwrap().parse::<usize>().unwrap();
                assert_eq!(record, content(number), "cut {cut}: half a record");
                number + 1
            });
            assert!(
                number.unwrap_or(0) >= *recorded,
                "cut {cut}: record {number:?}, {recorded} were"
            );
            // Twice: the work directory that the cut left behind serves again, and so does the one
            // after it.
            for start in 0..2 {
                let mut consumer = node.consumer(&format!("after-{cut}-{start}")).start();
                assert_eq!(
                    node.attach_when_free(&provider, &consumer),
                    Attached::Now,
                    "cut {cut}"
                );
                for i in 0..*synced {
                    assert_eq!(
                        consumer.read(&path(i)),
                        Ok(content(i)),
                        "cut {cut} of {synced} files"
                    );
                }
                consumer
                    .write_durable(&format!("/new/start-{start}"), "written")
                    .unwrap();
                // From the image into the upper directory, by way of the work directory.
                consumer
                    .write_durable(&format!("/image/{}", OLD - 1 - start), "written")
                    .unwrap();
                consumer.end();
            }
            drop(disk);
        }
    });
}

/// The file with this number; every other one is a file of the image, as long as there are some.
fn path(i: usize) -> String {
    if i.is_multiple_of(2) && i / 2 < OLD - 2 {
        format!("/image/{}", i / 2)
    } else {
        format!("/new/{i}")
    }
}

/// More than one block, which tells where it belongs.
fn content(i: usize) -> String {
    format!("{i} ").repeat(1000).trim_end().to_owned()
}
