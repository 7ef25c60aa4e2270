//! Where the agent reads the layers of an image.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rootfs::layers::{Kind, Layers, LayersError};
use rootfs::namespace::NamespaceThread;
use rootfs::{Attached, Process, attach};

use crate::node::Node;
use crate::user_namespaces::{Impostor, MOUNTS};

/// A process that may mount, in a pod that was made by hand: the names of its overlay's layers are
/// those of its own mounts, and on the node those of another tenant's directories.
#[test]
fn h12_i3_layers_that_no_mount_of_the_node_names_are_not_opened() {
    Node::with(|node| {
        let directory = node.path("tenant");
        let secret = directory.join("etc");
        for (name, file) in [("lower", "shadow"), ("other", "else")] {
            fs::create_dir_all(secret.join(name)).unwrap();
            fs::write(secret.join(name).join(file), "of the node").unwrap();
        }
        let lower = format!("{0}/lower:{0}/other", secret.display());
        let impostor = Impostor::start(MOUNTS, &directory, "etc", "overlay", &[("lowerdir", &lower)]);
        let kept = node.kept();
        let mut consumer = node.consumer("consumer").start();
        let request = rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &impostor.process,
            container: &consumer.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        };
        // On its own root, in which there is nothing.
        assert_eq!(rootfs::attach(request).unwrap(), Attached::Now);
        assert!(consumer.read("/shadow").is_err(), "a file of the node");
        assert_eq!(kind_of(node, &impostor.process).unwrap(), Kind::ContainerRoot);
        consumer.end();
        let view = || {
            attach::with_view(&node.proc, &node.namespace, &impostor.process, &kept, |root| {
                root.read("shadow".as_ref(), 100).unwrap()
            })
        };
        // As soon as the kernel has taken the consumer's overlay apart.
        let seen = (0..100_000).find_map(|_| view().ok());
        assert_eq!(seen, Some(None));
    });
}

/// A process of the container that gave itself another root has the image's layers all the same:
/// they are the container's.
#[test]
fn i3_layers_are_those_of_the_containers_root_and_not_of_a_processs() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        let process = crate::one_writer::Stayer::start(node, &provider, "/proc");
        let mut consumer = node.consumer("consumer").start();
        let kept = node.kept();
        let request = rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &process.process(),
            container: &consumer.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        };
        assert_eq!(rootfs::attach(request).unwrap(), Attached::Now);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "of the image");
        assert_eq!(kind_of(node, &process.process()).unwrap(), Kind::Directories);
    });
}

#[test]
fn i3_a_process_in_the_nodes_own_mount_namespace_runs_no_image() {
    Node::with(|node| {
        let mut child = Command::new("sleep").arg("infinity").spawn().unwrap();
        let process = Process::open(rustix::process::Pid::from_child(&child)).unwrap();
        let kind = kind_of(node, &process);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(kind, Err(LayersError::NotAContainer)), "{kind:?}");
    });
}

/// Layers whose list is too long for the kernel's page of options, and with odd names, are the same
/// on the node.
#[test]
fn layers_of_a_mount_of_the_node_are_opened() {
    Node::with(|node| {
        let layers: Vec<PathBuf> = (0..20)
            .map(|number| node.layer(&format!("{number} a,b"), &[(&format!("file{number}"), Some("x"))]))
            .collect();
        let layers: Vec<_> = layers.iter().map(PathBuf::as_path).collect();
        let provider = node.provider(&layers);
        assert_eq!(kind_of(node, &provider.process).unwrap(), Kind::Directories);
    });
}

/// CRI-O names layers by links in a directory of short names.
#[test]
fn layers_that_are_named_by_links_are_opened() {
    Node::with(|node| {
        let links: Vec<PathBuf> = ["base", "above"]
            .map(|name| {
                let layer = node.layer(name, &[(name, Some("x"))]);
                let link = node.path(&format!("link-{name}"));
                let target = layer.strip_prefix(link.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(target, &link).unwrap();
                link
            })
            .into();
        let provider = node.provider(&links.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        assert!(
            provider
                .process
                .mounts(&node.proc)
                .unwrap()
                .root()
                .unwrap()
                .super_option("lowerdir")
                .any(|list| { String::from_utf8(list).unwrap().contains("link-base") })
        );
        assert_eq!(kind_of(node, &provider.process).unwrap(), Kind::Directories);
    });
}

fn kind_of(node: &Node, image: &Process) -> Result<Kind, LayersError> {
    NamespaceThread::run(|thread| {
        Layers::of(thread, &node.proc, &node.namespace, image).map(|layers| layers.kind())
    })
    .unwrap()
}
