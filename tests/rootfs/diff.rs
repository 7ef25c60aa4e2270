//! What the user changed against the image, while the container runs and after it has stopped.

mod hostile;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rootfs::diff::{Change, ChangeKind, DiffError, Scope, Source, diff};
use rustix::fs::FileType;

use crate::container::Container;
use crate::node::Node;

/// Far more than a comparison takes.
const TIME: Duration = Duration::from_mins(5);

fn changes_at(
    node: &Node,
    image: &Container,
    path: &str,
    depth: Option<usize>,
) -> Result<Vec<Change>, DiffError> {
    let kept = node.kept();
    let source = Source {
        proc: &node.proc,
        node: &node.namespace,
        image: &image.process,
        kept: &kept,
    };
    // The consumer's own, and the directories above them.
    let mountpoints = ["/proc", "/dev", "/dev/shm", "/etc", "/etc/hosts"].map(PathBuf::from);
    let scope = Scope {
        path: Path::new(path),
        depth,
        mountpoints: &HashSet::from(mountpoints),
        until: Instant::now() + TIME,
    };
    let mut found = Vec::new();
    let complete = diff(source, scope, &mut |change| {
        found.push(change);
        true
    })?;
    assert!(complete, "not everything was reached");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The changes as text: `+` added, `~` changed, `-` deleted, and a number unless it is 1.
fn text(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let sign = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Changed => '~',
            ChangeKind::Deleted => '-',
        };
        let slash = if change.file_type == FileType::Directory && change.path != Path::new("/") {
            "/"
        } else {
            ""
        };
        let count = match change.count {
            1 => String::new(),
            count => format!(" {count}"),
        };
        format!("{sign}{}{slash}{count}", change.path.display())
    };
    changes.iter().map(line).collect()
}

fn changes(node: &Node, image: &Container) -> Vec<String> {
    text(&changes_at(node, image, "/", None).unwrap())
}

#[test]
fn what_was_added_changed_and_deleted_is_found_while_it_runs_and_afterwards() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/motd", Some("hello")),
                ("etc/issue", Some("image")),
                ("etc/hostname", Some("image")),
                ("usr/share/doc/a", Some("a")),
                ("usr/share/doc/b", Some("b")),
                ("usr/share/untouched", Some("c")),
            ],
        );
        let top = node.layer("top", &[("etc/issue", Some("image, changed by its author"))]);
        let provider = node.provider(&[&top, &base]);
        assert_eq!(changes(node, &provider), [""; 0]);

        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(changes(node, &provider), [""; 0], "mount points are not changes");
        consumer.write("/etc/motd", "changed").unwrap();
        consumer.remove("/etc/issue").unwrap();
        // A copy that is as before, and one with another owner.
        consumer.chown("/etc/hostname", 0).unwrap();
        assert!(node.upper("/etc/hostname").exists(), "it was not copied up");
        consumer.chown("/usr/share/untouched", 7).unwrap();
        consumer.make_directory("/srv").unwrap();
        consumer.write("/srv/new", "new").unwrap();
        consumer.remove_tree("/usr/share/doc").unwrap();
        let expected = [
            "-/etc/issue",
            "~/etc/motd",
            "+/srv/",
            "+/srv/new",
            "-/usr/share/doc/",
            "~/usr/share/untouched",
        ];
        assert_eq!(changes(node, &provider), expected);
        consumer.end();
        assert_eq!(changes(node, &provider), expected);
    });
}

/// A directory that was deleted and made again hides that of the image, also in the directories
/// below it, which the kernel does not mark.
#[test]
fn a_directory_in_place_of_the_images_deletes_what_it_does_not_have() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("opt/tool/bin/run", Some("1")),
                ("opt/tool/lib/one", Some("1")),
                ("opt/tool/lib/two", Some("2")),
                ("opt/tool/version", Some("1")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        consumer.remove_tree("/opt/tool").unwrap();
        for path in ["/opt/tool", "/opt/tool/lib"] {
            consumer.make_directory(path).unwrap();
        }
        consumer.write("/opt/tool/lib/two", "another").unwrap();
        consumer.write("/opt/tool/lib/three", "3").unwrap();
        let expected = [
            "-/opt/tool/bin/",
            "-/opt/tool/lib/one",
            "+/opt/tool/lib/three",
            "~/opt/tool/lib/two",
            "-/opt/tool/version",
        ];
        assert_eq!(changes(node, &provider), expected);
        // The same below a path in it, and of a path that is hidden.
        let below = changes_at(node, &provider, "/opt/tool/lib", None).unwrap();
        assert_eq!(text(&below), expected[1..4]);
        let hidden = changes_at(node, &provider, "/opt/tool/bin", None).unwrap();
        assert_eq!(text(&hidden), ["-/opt/tool/bin/"]);
    });
}

#[test]
fn a_type_and_the_target_of_a_link_count() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/mode", Some("-> one")),
                ("etc/file", Some("x")),
                ("etc/conf.d/a", Some("a")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        consumer.remove("/etc/file").unwrap();
        consumer.make_directory("/etc/file").unwrap();
        consumer.remove_tree("/etc/conf.d").unwrap();
        consumer.write("/etc/conf.d", "a file now").unwrap();
        consumer.end();
        fs::remove_file(node.upper("/etc/mode")).ok();
        symlink("two", node.upper("/etc/mode")).unwrap();
        assert_eq!(
            changes(node, &provider),
            ["~/etc/conf.d", "~/etc/file/", "~/etc/mode"]
        );
    });
}

#[test]
fn deeper_changes_are_summed_up_in_their_directories() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("usr/lib/a", Some("a")),
                ("usr/lib/b/c", Some("c")),
                ("etc/x", Some("x")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        consumer.write("/usr/lib/a", "changed").unwrap();
        consumer.remove("/usr/lib/b/c").unwrap();
        consumer.write("/usr/lib/b/d", "new").unwrap();
        consumer.make_directory("/srv").unwrap();
        consumer.write("/srv/one", "1").unwrap();
        consumer.write("/top", "1").unwrap();
        let at = |path, depth| text(&changes_at(node, &provider, path, Some(depth)).unwrap());
        assert_eq!(at("/", 1), ["+/srv/ 2", "+/top", "~/usr/ 3"]);
        assert_eq!(at("/", 2), ["+/srv/", "+/srv/one", "+/top", "~/usr/lib/ 3"]);
        assert_eq!(at("/", 0), ["~/ 6"]);
        assert_eq!(at("/usr/lib", 1), ["~/usr/lib/a", "~/usr/lib/b/ 2"]);
        assert_eq!(at("/usr/lib/a", 0), ["~/usr/lib/a"]);
        assert_eq!(at("/etc", 0), [""; 0]);
    });
}

/// A hook's file is not the user's, and what it covers is.
#[test]
fn the_runtime_layer_is_not_a_change_and_what_it_covers_is() {
    Node::with(|node| {
        let base = node.layer("base", &[("usr/bin/tool", Some("image"))]);
        let provider = node.provider(&[&base]);
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.make_directory("/opt").unwrap();
        first.write("/opt/driver", "mine").unwrap();
        first.write("/usr/bin/tool", "mine").unwrap();
        first.end();
        let expected = ["+/opt/", "+/opt/driver", "~/usr/bin/tool"];
        assert_eq!(changes(node, &provider), expected);

        let second = node.consumer("second").start();
        let root = node.path("second").join("root");
        for (path, content) in [
            ("opt/driver", "of the hook"),
            ("usr/bin/tool", "of the hook"),
            ("usr/lib/driver/lib.so", "of the hook"),
            ("usr/lib/driver/other.so", "of the hook"),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), content).unwrap();
        }
        node.attach_when_free(&provider, &second);
        let mut second = second;
        assert_eq!(second.read("/opt/driver").as_deref(), Ok("of the hook"));
        assert_eq!(changes(node, &provider), expected);
        assert_eq!(
            text(&changes_at(node, &provider, "/", Some(1)).unwrap()),
            ["+/opt/", "~/opt/", "~/usr/"]
        );
        assert_eq!(
            text(&changes_at(node, &provider, "/opt/driver", None).unwrap()),
            ["+/opt/driver"]
        );
        // Deleted, copied up without a change, and changed: only the last one is the user's.
        second.remove("/usr/lib/driver/other.so").unwrap();
        second.chown("/usr/lib/driver/lib.so", 0).unwrap();
        assert_eq!(changes(node, &provider), expected);
        second.write("/usr/lib/driver/lib.so", "mine").unwrap();
        let with_it = [
            "+/opt/",
            "+/opt/driver",
            "~/usr/bin/tool",
            "+/usr/lib/driver/lib.so",
        ];
        assert_eq!(changes(node, &provider), with_it);
        second.end();
        assert_eq!(changes(node, &provider), with_it);
    });
}

#[test]
fn a_path_that_is_a_link_or_not_there_is_refused_with_its_reason() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("usr/bin/sh", Some("sh")),
                ("bin", Some("-> usr/bin")),
                ("etc/x", Some("x")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        consumer.remove("/etc/x").unwrap();
        let at = |path| changes_at(node, &provider, path, None);
        assert_eq!(
            at("/bin/sh").unwrap_err().to_string(),
            "/bin is a symbolic link to usr/bin; name the path that it leads to"
        );
        assert_eq!(text(&at("/bin").unwrap()), [""; 0], "the link itself");
        assert_eq!(text(&at("/usr/bin/sh").unwrap()), [""; 0]);
        assert_eq!(text(&at("/etc/x").unwrap()), ["-/etc/x"]);
        for path in ["/none", "/usr/none/x", "/etc/x/y", "/usr/bin/sh/x"] {
            let error = at(path).unwrap_err();
            assert!(matches!(error, DiffError::NotFound(_)), "{path}: {error}");
        }
    });
}
