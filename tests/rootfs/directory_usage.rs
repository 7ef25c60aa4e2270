//! What the directories of a kept filesystem take.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rootfs::diff::{DiffError, Source};
use rootfs::usage::{directories, measure};

use crate::container::Container;
use crate::node::Node;

/// Far more than a measurement takes.
const TIME: Duration = Duration::from_mins(5);

/// Path, bytes and inodes, in the order of the paths.
fn usages(
    node: &Node,
    image: &Container,
    path: &str,
    depth: usize,
) -> Result<Vec<(String, u64, u64)>, DiffError> {
    let kept = node.kept();
    let source = Source {
        proc: &node.proc,
        node: &node.namespace,
        image: &image.process,
        kept: &kept,
    };
    let mut found = Vec::new();
    let until = Instant::now() + TIME;
    let complete = directories(source, Path::new(path), depth, until, &mut |directory| {
        let path = directory.path.to_str().unwrap().to_owned();
        found.push((path, directory.bytes, directory.inodes));
        true
    })?;
    assert!(complete, "not everything was reached");
    found.sort();
    Ok(found)
}

fn blocks(node: &Node, path: &str) -> u64 {
    fs::symlink_metadata(node.upper(path)).unwrap().blocks() * 512
}

#[test]
fn a_directory_counts_with_all_below_it_while_it_runs_and_afterwards() {
    Node::with(|node| {
        let base = node.layer("base", &[("usr/lib/image", Some(&"x".repeat(100_000)))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        for directory in ["/var", "/var/a", "/var/a/b", "/var/a/b/c"] {
            consumer.make_directory(directory).unwrap();
        }
        consumer
            .write_durable("/var/a/b/c/deep", &"x".repeat(50_000))
            .unwrap();
        consumer
            .write_durable("/var/a/near", &"x".repeat(20_000))
            .unwrap();
        let check = || {
            let deep =
                blocks(node, "/var/a/b/c/deep") + blocks(node, "/var/a/b/c") + blocks(node, "/var/a/b");
            let a = deep + blocks(node, "/var/a/near") + blocks(node, "/var/a");
            let var = a + blocks(node, "/var");
            let at = |path, depth| usages(node, &provider, path, depth).unwrap();
            assert_eq!(at("/var", 0), [("/var".to_owned(), var, 6)]);
            assert_eq!(
                at("/var", 2),
                [
                    ("/var".to_owned(), var, 6),
                    ("/var/a".to_owned(), a, 5),
                    ("/var/a/b".to_owned(), deep, 3)
                ]
            );
            let near = blocks(node, "/var/a/near");
            assert_eq!(at("/var/a/near", 3), [("/var/a/near".to_owned(), near, 1)]);
            // What the image has takes nothing, and the root takes what the status says.
            assert_eq!(at("/usr/lib", 5), [("/usr/lib".to_owned(), 0, 0)]);
            let whole = measure(node.kept().upper().unwrap(), Instant::now() + TIME).unwrap();
            assert_eq!(at("/", 0), [("/".to_owned(), whole.bytes, whole.inodes)]);
        };
        check();
        consumer.end();
        check();
        let error = usages(node, &provider, "/none", 0).unwrap_err();
        assert!(matches!(error, DiffError::NotFound(_)), "{error}");
    });
}

/// A name is a share of a file, so the directories above are the sum of those in them.
#[test]
fn a_file_with_names_in_two_directories_counts_once_above_them() {
    Node::with(|node| {
        let base = node.layer("base", &[("x", None)]);
        let provider = node.provider(&[&base]);
        drop(node.kept());
        for directory in ["/d/one", "/d/two"] {
            fs::create_dir_all(node.upper(directory)).unwrap();
        }
        fs::write(node.upper("/d/one/file"), vec![7; 400_000]).unwrap();
        fs::File::open(node.upper("/d/one/file"))
            .unwrap()
            .sync_all()
            .unwrap();
        fs::hard_link(node.upper("/d/one/file"), node.upper("/d/two/file")).unwrap();
        let file = blocks(node, "/d/one/file");
        let found = usages(node, &provider, "/d", 1).unwrap();
        let of = |at: usize| found[at].1;
        assert_eq!(of(1), file / 2 + blocks(node, "/d/one"));
        assert_eq!(of(0), of(1) + of(2) + blocks(node, "/d"));
        assert_eq!(of(0), file + blocks(node, "/d") + 2 * blocks(node, "/d/one"));
    });
}
