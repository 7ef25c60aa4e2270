//! Images and pods that try to lead the agent out of the root, or to keep it busy. Every test of
//! this class also checks that the machine's own files did not change.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::libraries::cache;
use super::{HookRoot, refused, start};
use crate::node::Node;

/// How the agent says that a start is refused.
const BEGINS: &str = "cannot take over what the container runtime did to the container's root: the runtime or one of \
                      its hooks ";
const ENDS: &str = "remove the device from the template";

fn fifo(path: &std::path::Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

fn hooks(root: &HookRoot) {
    root.link("/usr/lib/libcuda.so", "libcuda.so.1");
    root.file("/etc/ld.so.conf.d/00-nvcr-1.conf", "/opt/driver\n");
    root.file("/etc/ld.so.cache", "");
}

/// Links that lead to the node's own files are links inside the root.
#[test]
fn i7_h1_h12_links_of_the_image_do_not_lead_out_of_the_root() {
    Node::with(|node| {
        let outside = node.path("outside");
        fs::create_dir_all(&outside).unwrap();
        for name in ["cache", "conf"] {
            fs::write(outside.join(name), "of the node").unwrap();
        }
        let to = |name: &str| format!("-> {}", outside.join(name).display());
        let base = node.layer(
            "base",
            &[
                ("etc/ld.so.cache", Some(&to("cache"))),
                ("etc/ld.so.conf", Some(&to("conf"))),
                ("usr/lib", Some(&format!("-> {}", outside.display()))),
                ("lib", Some("-> ../../../../../../lib")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = start(node, &provider, &node.consumer("consumer"), "consumer", hooks);
        // The hook's link is where the image's link leads, inside.
        assert_eq!(
            consumer.list(&outside.display().to_string()).unwrap(),
            "libcuda.so"
        );
        assert!(consumer.stat("/etc/ld.so.cache").unwrap().starts_with("file"));
        assert!(cache(&consumer, "/etc/ld.so.cache").is_empty());
        for name in ["cache", "conf"] {
            assert_eq!(fs::read_to_string(outside.join(name)).unwrap(), "of the node");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
    });
}

/// What is read of the image is bounded, and nothing but a regular file is opened.
#[test]
fn h12_files_of_the_loader_that_are_pipes_loops_or_huge() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                (
                    "etc/ld.so.conf",
                    Some("include /etc/ld.so.conf\ninclude /etc/ld.so.conf.d/*.conf\n/opt/loop\n/opt/pipe\n"),
                ),
                (
                    "etc/ld.so.conf.d/again.conf",
                    Some("include /etc/ld.so.conf\ninclude *.conf\n"),
                ),
                ("opt/loop", Some("-> loop")),
                ("usr/lib/libloop.so.1", Some("-> libloop.so.1")),
                ("usr/lib/libzero.so.1", Some("-> /dev/zero")),
                ("usr/lib/libdirectory.so.1/x", Some("x")),
            ],
        );
        fifo(&base.join("etc/ld.so.conf.d/pipe.conf"));
        fifo(&base.join("etc/ld.so.cache"));
        fifo(&base.join("opt/pipe"));
        fifo(&base.join("usr/lib/libpipe.so.1"));
        for path in ["etc/ld.so.conf.d/huge.conf", "usr/lib/libhuge.so.1"] {
            fs::File::create(base.join(path))
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
        }
        let provider = node.provider(&[&base]);
        let mut consumer = start(node, &provider, &node.consumer("consumer"), "consumer", hooks);
        assert!(cache(&consumer, "/etc/ld.so.cache").is_empty());
        assert!(consumer.stat("/etc/ld.so.cache").unwrap().starts_with("file"));
    });
}

/// More files than the engine reads: the start is refused with the reason, and the next one without
/// them works.
#[test]
fn i18_h12_a_root_with_too_many_changes_is_refused() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("x"))]);
        let provider = node.provider(&[&base]);
        let refused_with = |name: &str, hooks: &dyn Fn(&HookRoot)| {
            let consumer = node.consumer(name).start();
            hooks(&HookRoot::of(node, name));
            refused(node, &provider, &consumer)
        };
        let many = refused_with("many", &|root| {
            for number in 0..5000 {
                root.file(&format!("/opt/{number}"), "");
            }
        });
        assert_eq!(
            many,
            format!("{BEGINS}made more than 4096 files there; put them into the image, or {ENDS}")
        );
        let large = refused_with("large", &|root| {
            fs::File::create(root.path("/opt/large"))
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
        });
        assert_eq!(
            large,
            format!(
                "{BEGINS}made files of more than 4194304 bytes there; put them into the image, or {ENDS}"
            )
        );
        let socket = refused_with("socket", &|root| {
            drop(UnixListener::bind(root.path("/opt/socket")).unwrap());
        });
        let made = format!("{BEGINS}made the socket /opt/socket there, and a socket is nothing");
        assert!(socket.starts_with(&made), "{socket}");
        assert!(
            socket.ends_with(&format!("; let the driver mount it, or {ENDS}")),
            "{socket}"
        );
        let mut consumer = start(node, &provider, &node.consumer("next"), "next", |_| {});
        assert_eq!(consumer.read("/etc/motd").unwrap(), "x");
    });
}

/// A directory of the user where a hook makes a link: the runtime of a plain pod fails too.
#[test]
fn i5_h12_a_directory_in_a_hooks_place_is_refused_and_nothing_is_lost() {
    Node::with(|node| {
        let base = node.layer("base", &[("usr/lib/libcuda.so/x", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        hooks(&HookRoot::of(node, "consumer"));
        let error = refused(node, &provider, &consumer);
        assert!(
            error.ends_with(
                ": a hook makes the file /usr/lib/libcuda.so, and there is a directory in the image or of the user; \
                 remove the directory, or the device from the template"
            ),
            "{error}"
        );
        drop(consumer);
        let mut consumer = start(node, &provider, &node.consumer("next"), "next", |_| {});
        assert_eq!(consumer.read("/usr/lib/libcuda.so/x").unwrap(), "of the image");
    });
}

/// Files of another process of the pod, in the wrapper's root, lead nowhere either.
#[test]
fn i7_h2_links_in_the_containers_own_root_are_taken_as_links() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("x"))]);
        let provider = node.provider(&[&base]);
        let outside = node.path("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret"), "of the node").unwrap();
        let mut consumer = start(node, &provider, &node.consumer("consumer"), "consumer", |root| {
            symlink(&outside, root.path("/opt")).unwrap();
        });
        assert_eq!(consumer.stat("/opt").unwrap(), "link 777 0:0");
        assert!(
            consumer.list("/opt").is_err(),
            "in the kept root there is no such directory"
        );
    });
}

/// Directories and names of the loader beyond any root's: within bounds, whatever they are.
#[test]
fn i18_h12_a_configuration_that_names_too_much_is_read_within_bounds() {
    Node::with(|node| {
        let lines = "/opt/libraries\n".repeat(4000);
        let base = node.layer(
            "base",
            &[("etc/ld.so.conf", Some(&lines)), ("opt/libraries", None)],
        );
        for file in 0..300 {
            let path = base.join(format!("etc/ld.so.conf.d/{file}.conf"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &lines).unwrap();
        }
        let provider = node.provider(&[&base]);
        let consumer = start(node, &provider, &node.consumer("within"), "within", hooks);
        assert!(cache(&consumer, "/etc/ld.so.cache").is_empty());
        consumer.end();
        let file = base.join("opt/libraries/0");
        fs::write(&file, "").unwrap();
        for name in 1..=30_000 {
            fs::hard_link(&file, base.join(format!("opt/libraries/{name}"))).unwrap();
        }
        let consumer = node.consumer("beyond").start();
        hooks(&HookRoot::of(node, "beyond"));
        let error = refused(node, &provider, &consumer);
        assert!(
            error.contains("the directories of the loader have more than 30000 files, or ")
                && error.ends_with(
                    "; remove directories from /etc/ld.so.conf of the image, or the device from the template"
                ),
            "{error}"
        );
    });
}
