//! Overlays and what may lie under them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rootfs::namespace::NamespaceThread;
use rootfs::overlay::{LowerdirApi, Overlay, OverlayError, Upper};
use rootfs::{Attached, Root, Store, attach};
use rustix::fs::{Mode, OFlags};

use crate::kernel::{self, LOWERDIR_APIS};
use crate::node::Node;

pub(crate) fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

/// Makes an overlay with one API and reads a file of it.
pub(crate) fn read(
    node: &Node,
    layers: &[OwnedFd],
    api: LowerdirApi,
    path: &str,
) -> Result<Option<Vec<u8>>, OverlayError> {
    read_in(node, layers, Some(api), path)
}

/// The same, without a api in the one that the engine chooses.
pub(crate) fn read_in(
    node: &Node,
    layers: &[OwnedFd],
    api: Option<LowerdirApi>,
    path: &str,
) -> Result<Option<Vec<u8>>, OverlayError> {
    let store = Store::open(&node.root(), &node.path("store"));
    let kept = match store.unwrap().and_then(|store| store.get(&node.key).unwrap()) {
        Some(kept) => kept,
        None => node.kept(),
    };
    let (upper, work) = (format!("{}/upper", node.key), format!("{}/work", node.key));
    NamespaceThread::run(|thread| {
        thread.enter(&node.namespace).unwrap();
        let overlay = Overlay {
            lower: layers.iter().map(AsFd::as_fd).collect(),
            upper: Some(Upper {
                base: kept.store(),
                upper: &upper,
                work: &work,
            }),
            exclusive: false,
            volatile: false,
            context: None,
        };
        let root = Root::new(match api {
            Some(api) => overlay.mount_with_api(thread, api),
            None => overlay.mount(thread),
        }?);
        Ok(root.read(path.as_ref(), 100).unwrap())
    })
    .unwrap()
}

#[test]
fn every_dialect_stacks_layers_in_order() {
    for api in LOWERDIR_APIS.into_iter().filter(|api| kernel::knows(*api)) {
        Node::with(|node| {
            let layers = [("top: a,b", "1"), ("middle\\", "2"), ("bottom", "3")];
            let layers = layers.map(|(name, content)| open(&node.layer(name, &[("file", Some(content))])));
            assert_eq!(
                read(node, &layers, api, "file").unwrap(),
                Some(b"1".to_vec()),
                "{api:?}"
            );
        });
    }
}

#[test]
fn many_layers() {
    Node::with(|node| {
        let layers: Vec<_> = (0..127)
            .map(|i| {
                open(&node.layer(
                    &format!("{i}-{}", "x".repeat(200)),
                    &[(&format!("file{i}"), Some("x"))],
                ))
            })
            .collect();
        for api in [LowerdirApi::Descriptors, LowerdirApi::Paths] {
            if !kernel::knows(api) {
                continue;
            }
            assert_eq!(
                read(node, &layers, api, "file126").unwrap(),
                Some(b"x".to_vec()),
                "{api:?}"
            );
        }
        let joined = read(node, &layers, LowerdirApi::Joined, "file126");
        assert!(
            matches!(joined, Err(OverlayError::TooManyLayers(127))),
            "{joined:?}"
        );
    });
}

#[test]
fn the_containers_root_is_a_layer_where_there_are_no_others() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        // Other directories of the same names: what a runtime's private mounts look like from
        // outside.
        fs::rename(&base, node.path("elsewhere")).unwrap();
        let mut consumer = node.consumer("consumer").start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
        consumer.write("/etc/motd", "changed").unwrap();
        assert_eq!(fs::read_to_string(node.upper("/etc/motd")).unwrap(), "changed");
    });
}

/// Before 6.7, where a list of all layers has to fit into little room.
#[test]
fn i9_the_containers_root_is_a_layer_where_the_kernel_takes_no_more() {
    Node::with(|node| {
        let layers: Vec<_> = (0..100)
            .map(|i| node.layer(&format!("{i}"), &[(&format!("file{i}"), Some("of the image"))]))
            .collect();
        let layers: Vec<_> = layers.iter().map(PathBuf::as_path).collect();
        let provider = node.provider(&layers);
        let mut consumer = node.consumer("consumer").start();
        let kept = node.kept();
        let request = rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &provider.process,
            container: &consumer.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        };
        let attached = rootfs::test_hooks::attach_with_api(request, LowerdirApi::Joined);
        assert_eq!(attached.unwrap(), Attached::Now);
        for i in [0, 99] {
            assert_eq!(consumer.read(&format!("/file{i}")).as_deref(), Ok("of the image"));
        }
        consumer.write("/file99", "changed").unwrap();
        assert_eq!(fs::read_to_string(node.upper("/file99")).unwrap(), "changed");
        consumer.end();

        // And with another kernel the same data is there.
        let mut consumer = node.consumer("again").start();
        assert_eq!(node.attach_when_free(&provider, &consumer), Attached::Now);
        assert_eq!(consumer.read("/file99").as_deref(), Ok("changed"));
        assert_eq!(consumer.read("/file0").as_deref(), Ok("of the image"));
    });
}

#[test]
fn a_view_is_merged_and_read_only_and_leaves_nothing() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/passwd", Some("of the image")),
                ("etc/group", Some("of the image")),
            ],
        );
        let provider = node.provider(&[&base]);
        let kept = node.kept();
        fs::create_dir_all(node.upper("/etc")).unwrap();
        fs::write(node.upper("/etc/passwd"), "changed").unwrap();
        let read = attach::with_view(&node.proc, &node.namespace, &provider.process, &kept, |root| {
            assert!(root.create_directory("x".as_ref(), Mode::RWXU).is_err());
            ["etc/passwd", "etc/group"].map(|path| root.read(path.as_ref(), 100).unwrap().unwrap())
        });
        assert_eq!(read.unwrap(), [b"changed".to_vec(), b"of the image".to_vec()]);
    });
}

#[test]
fn h15_a_planted_redirect_is_not_followed() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[("secret/file", Some("secret")), ("etc/motd", Some("hello"))],
        );
        let provider = node.provider(&[&base]);
        drop(node.kept());
        fs::create_dir_all(node.upper("/open")).unwrap();
        let redirect = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(
            node.upper("/open"),
            "trusted.overlay.redirect",
            b"/secret",
            redirect,
        )
        .unwrap();
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        assert!(consumer.read("/open/file").is_err());
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
    });
}

#[test]
fn a_container_on_a_kept_filesystem_is_no_image() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        let second = node.consumer("second").start();
        let kept = {
            let store = rootfs::Store::create(&node.root(), &node.path("store")).unwrap();
            store.create_key("another", &node.root().stat().unwrap()).unwrap()
        };
        let request = rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &first.process,
            container: &second.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        };
        let error = format!("{:?}", rootfs::attach(request).unwrap_err());
        assert!(error.contains("Kept"), "{error}");
    });
}
