/*!
Processes in a user namespace of their own, which `unshare -Urm` makes without privileges. They can
mount what they like there, under any name.
*/

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rootfs::layers::LayersError;
use rootfs::{AttachError, Attached, Process, attach, holders};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::Pid;

use crate::container::{self, new_mount};
use crate::kernel;
use crate::node::Node;

/// A process whose root is an overlay that it made in its own namespaces; ends when it is dropped.
pub(crate) struct Impostor {
    child: Child,
    pub(crate) process: Process,
}

/// What an impostor has of its own.
const USER_AND_MOUNTS: &[&str] = &["--user", "--map-root-user", "--mount"];
/// The same for one that may mount.
pub(crate) const MOUNTS: &[&str] = &["--mount"];

// === impl Impostor ===

impl Impostor {
    /// Like [`Impostor::start`] in a user namespace. `None` on a kernel that mounts no overlay
    /// there.
    fn start_in_user_namespace(
        directory: &Path,
        mask: &str,
        source: &str,
        options: &[(&str, &str)],
    ) -> Option<Self> {
        let impostor = Self::try_start(USER_AND_MOUNTS, directory, mask, source, options);
        let may_mount = kernel::is((5, 11));
        assert_eq!(impostor.is_some(), may_mount, "what may mount an overlay");
        let may = if may_mount { "may" } else { "may not" };
        kernel::tell(&format!("a user namespace {may} mount an overlay"));
        impostor
    }

    /// `directory` (on the node, with `mask` and `root` in it) is covered by the impostor with a
    /// file system of its own in `mask`. There it makes the directories of `options` and mounts an
    /// overlay of them.
    pub(crate) fn start(
        namespaces: &[&str],
        directory: &Path,
        mask: &str,
        source: &str,
        options: &[(&str, &str)],
    ) -> Self {
        Self::try_start(namespaces, directory, mask, source, options).expect("the impostor ended")
    }

    fn try_start(
        namespaces: &[&str],
        directory: &Path,
        mask: &str,
        source: &str,
        options: &[(&str, &str)],
    ) -> Option<Self> {
        fs::create_dir_all(directory.join(mask)).unwrap();
        fs::create_dir_all(directory.join("root")).unwrap();
        let options: Vec<_> = options
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut child = Command::new("unshare")
            .args(namespaces)
            .args(["--propagation", "private"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "user_namespaces::inside", "--ignored", "--nocapture"])
            .env("IMPOSTOR_DIRECTORY", directory)
            .env("IMPOSTOR_MASK", mask)
            .env("IMPOSTOR_SOURCE", source)
            .env("IMPOSTOR_OPTIONS", options.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::open(Pid::from_child(&child)).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .map(Result::unwrap)
            .any(|line| line.contains("impostor is ready"));
        let impostor = Self { child, process };
        ready.then_some(impostor)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What runs as an impostor. Not a test: [`Impostor::start`] starts it.
#[test]
#[ignore = "runs in namespaces that a test makes"]
fn inside() {
    let Ok(directory) = std::env::var("IMPOSTOR_DIRECTORY") else {
        return;
    };
    let directory = Path::new(&directory);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let mask = directory.join(std::env::var("IMPOSTOR_MASK").unwrap());
    container::attach(new_mount("tmpfs", &[("mode", "0755".to_owned())]), &mask);
    let options = std::env::var("IMPOSTOR_OPTIONS").unwrap();
    let mut all = vec![("source", std::env::var("IMPOSTOR_SOURCE").unwrap())];
    for option in options.lines() {
        let (key, value) = option.split_once('=').unwrap();
        for path in value.split(':').filter(|path| path.starts_with('/')) {
            fs::create_dir_all(path).unwrap();
        }
        all.push((key, value.to_owned()));
    }
    let overlay = match container::try_new_mount("overlay", &all) {
        Err(Errno::PERM) => return,
        overlay => overlay.unwrap(),
    };
    container::attach(overlay, &directory.join("root"));
    std::env::set_current_dir(directory.join("root")).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    unmount(".", UnmountFlags::DETACH).unwrap();
    println!("impostor is ready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    // Nothing of the harness's own may run on a root that it does not know.
    std::process::exit(0);
}

/// The names of its overlay's layers refer to its own mounts. On the node, the same names refer to
/// directories of other users.
#[test]
fn h12_layers_named_in_a_user_namespace_are_not_opened() {
    Node::with(|node| {
        let directory = node.path("tenant");
        let secret = directory.join("etc");
        fs::create_dir_all(secret.join("lower")).unwrap();
        fs::write(secret.join("lower/shadow"), "of the node").unwrap();
        let lower = format!("{0}/lower:{0}/other", secret.display());
        fs::create_dir(secret.join("other")).unwrap();
        let options = [("lowerdir", lower.as_str())];
        let Some(impostor) = Impostor::start_in_user_namespace(&directory, "etc", "overlay", &options) else {
            return;
        };
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
        let attached = rootfs::attach(request);
        let read = consumer.read("/shadow");
        assert!(
            matches!(attached, Err(AttachError::Layers(LayersError::UserNamespace))),
            "{attached:?}, and the container reads {read:?}"
        );
        assert_eq!(
            consumer.read("/exec-wrapper").unwrap(),
            "wrapper",
            "it is as it was"
        );
        let view = attach::with_view(&node.proc, &node.namespace, &impostor.process, &kept, |root| {
            root.read("shadow".as_ref(), 100).unwrap()
        });
        assert!(
            matches!(view, Err(AttachError::Layers(LayersError::UserNamespace))),
            "{view:?}"
        );
    });
}

/// By the names of its mounts it is a container on the kept filesystem. The agent does not read
/// anything from it, does not answer that it was moved, and does not wait for it. The kernel
/// decides whether the data is in use.
#[test]
fn h12_h25_a_holder_by_name_alone_is_not_believed() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/passwd", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        let directory = node.path("tenant");
        let mask = directory.join("mask");
        let path = |name: &str| mask.join(name).display().to_string();
        let options = [
            ("lowerdir", path("lower")),
            ("upperdir", path(&format!("{}/upper", node.key))),
            ("workdir", path(&format!("{}/work", node.key))),
        ];
        let options: Vec<_> = options.iter().map(|(key, path)| (*key, path.as_str())).collect();
        let impostor = Impostor::start_in_user_namespace(&directory, "mask", rootfs::SOURCE, &options);
        let Some(impostor) = impostor else { return };

        let found = holders::find(&node.proc, &node.key).unwrap();
        assert_eq!(
            found.iter().map(|holder| holder.process.id()).collect::<Vec<_>>(),
            [impostor.process.id()]
        );
        assert!(!found[0].in_host_userns);
        assert!(!attach::is_attached(&node.proc, &impostor.process, None, &node.key).unwrap());
        assert!(
            attach::root_of(&node.proc, &impostor.process, None, &node.key)
                .unwrap()
                .is_none()
        );
        assert!(
            attach::root_of(&node.proc, &consumer.process, None, &node.key)
                .unwrap()
                .is_none()
        );
        assert_eq!(
            node.attach_to(&node.kept(), &provider, &consumer).unwrap(),
            Attached::Now
        );
        drop(impostor);
        assert!(attach::is_attached(&node.proc, &consumer.process, None, &node.key).unwrap());
        assert!(!attach::is_attached(&node.proc, &consumer.process, None, "another").unwrap());
        let root = attach::root_of(&node.proc, &consumer.process, None, &node.key)
            .unwrap()
            .unwrap();
        assert_eq!(
            root.read("etc/passwd".as_ref(), 100).unwrap().unwrap(),
            b"of the image"
        );
    });
}
