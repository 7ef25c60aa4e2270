/*!
The node of a test: a private copy of the machine's mount namespace with a file system of its own
for layers, containers and kept filesystems: ext4, as no kept filesystem may lie on a tmpfs, on a
disk that is an image in memory.
*/

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rootfs::namespace::NamespaceThread;
use rootfs::test_hooks::attach_observed;
use rootfs::{AttachError, Attached, Kept, Namespace, Proc, Request, Root, Store, attach};
use rustix::fs::{Mode, OFlags};

use crate::container::{self, Container, Spec};
use crate::disk;
use crate::untouched::Untouched;

/// Size of a node's disk, of which it takes what is written.
const MEGABYTES: u64 = 1024;

/// A node.
pub(crate) struct Node {
    directory: PathBuf,
    /// Key of the kept filesystem; another one for each test, as they share the machine's
    /// processes.
    pub(crate) key: String,
    pub(crate) proc: Proc,
    pub(crate) namespace: Namespace,
}

// === impl Node ===

impl Node {
    /// Runs a test on a node of its own.
    pub(crate) fn with(test: impl FnOnce(&Self) + Send) {
        // Made outside, so that it can be removed outside.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        NamespaceThread::run(|thread| {
            thread.enter_private_copy().unwrap();
            container::attach(
                container::new_mount("tmpfs", &[("mode", "0755".to_owned())]),
                &path,
            );
            let disk = path.join("node");
            disk::make_machine(&path.join("node.image"), MEGABYTES, &disk);
            let proc = Proc::open().unwrap();
            let namespace = Namespace::new(proc.open_at("thread-self/ns/mnt", OFlags::RDONLY).unwrap());
            let name = directory.path().file_name().unwrap().to_str().unwrap();
            let key = format!("kept-{}", name.trim_start_matches('.'));
            let node = Self {
                directory: disk.clone(),
                key,
                proc,
                namespace,
            };
            let (before, untouched) = (node.mounts(), Untouched::begin(node.path("neighbours")));
            test(&node);
            assert_eq!(node.mounts(), before, "the node's mount table changed");
            untouched.check();
            disk::unmount(&disk);
            disk::unmount(&path);
        })
        .unwrap();
    }

    /// A path on the node's own file system.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A directory of the image with these files; `None` as content makes a directory, `-> x` a
    /// link to x.
    pub(crate) fn layer(&self, name: &str, files: &[(&str, Option<&str>)]) -> PathBuf {
        let layer = self.path("layers").join(name);
        fs::create_dir_all(&layer).unwrap();
        fs::set_permissions(&layer, fs::Permissions::from_mode(0o755)).unwrap();
        for (path, content) in files {
            let path = layer.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content {
                None => fs::create_dir_all(&path).unwrap(),
                Some(content) => match content.strip_prefix("-> ") {
                    Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
                    None => fs::write(&path, content).unwrap(),
                },
            }
        }
        layer
    }

    /// A container that runs an image of these layers, the topmost first.
    pub(crate) fn provider(&self, layers: &[&Path]) -> Container {
        Spec::new(self.path("provider"), layers)
            .read_only()
            .proc()
            .start()
    }

    /// What a consumer is before it is moved: the wrapper image and the usual mounts.
    pub(crate) fn consumer(&self, name: &str) -> Spec {
        let image = self.layer("wrapper", &[("exec-wrapper", Some("wrapper"))]);
        let hosts = self.path("hosts");
        fs::write(&hosts, "hosts of the pod").unwrap();
        Spec::new(self.path(name), &[&image])
            .proc()
            .tmpfs("/dev")
            .tmpfs("/dev/shm")
            .bind(&hosts, "/etc/hosts", "private")
    }

    /// The kept filesystem, made if it is missing.
    pub(crate) fn kept(&self) -> Kept {
        let store = Store::create(&self.root(), &self.path("store")).unwrap();
        store
            .create_key(&self.key, &Root::of_this_thread().unwrap().stat().unwrap())
            .unwrap()
    }

    /// The node's root.
    #[allow(clippy::unused_self, reason = "it is this node's because the thread is on it")]
    pub(crate) fn root(&self) -> Root {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Root::new(rustix::fs::open("/", flags, Mode::empty()).unwrap())
    }

    /// Moves a container onto the kept filesystem.
    pub(crate) fn attach(&self, image: &Container, container: &Container) -> Result<Attached, AttachError> {
        self.attach_observed(image, container, None)
    }

    /// The same, with a call for every step.
    pub(crate) fn attach_observed(
        &self,
        image: &Container,
        container: &Container,
        observer: Option<&(dyn Fn(&'static str) + Sync)>,
    ) -> Result<Attached, AttachError> {
        self.attach_to_observed(&self.kept(), image, container, observer)
    }

    /// Moves a container onto this kept filesystem.
    pub(crate) fn attach_to(
        &self,
        kept: &Kept,
        image: &Container,
        container: &Container,
    ) -> Result<Attached, AttachError> {
        self.attach_to_observed(kept, image, container, None)
    }

    fn attach_to_observed(
        &self,
        kept: &Kept,
        image: &Container,
        container: &Container,
        observer: Option<&(dyn Fn(&'static str) + Sync)>,
    ) -> Result<Attached, AttachError> {
        let request = Request {
            proc: &self.proc,
            node: &self.namespace,
            image: &image.process,
            container: &container.process,
            users: container.users.as_ref(),
            kept,
            repeat: container.repeat(),
        };
        match observer {
            Some(observer) => attach_observed(request, observer),
            None => attach(request),
        }
    }

    /// The same, as soon as the kernel has taken apart what used the kept filesystem before.
    pub(crate) fn attach_when_free(&self, image: &Container, container: &Container) -> Attached {
        for _ in 0..100_000 {
            match self.attach(image, container) {
                Err(AttachError::Held(_) | AttachError::Busy) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
        panic!("the kept filesystem does not become free");
    }

    /// Content of a file in the upper directory.
    pub(crate) fn upper(&self, path: &str) -> PathBuf {
        self.path("store")
            .join(&self.key)
            .join("upper")
            .join(path.trim_start_matches('/'))
    }

    fn mounts(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let table = self.proc.own_mounts().unwrap();
        table
            .mounts()
            .iter()
            .map(|m| (m.mountpoint.clone(), m.super_options.clone()))
            .collect()
    }
}
